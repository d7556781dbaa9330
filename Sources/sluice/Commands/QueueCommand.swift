import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice queue`.
struct QueueCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "Pause and resume queues.", subcommands: [QueuePauseCommand.self, QueueResumeCommand.self])
}

extension JobClass: ExpressibleByArgument {}

/// `sluice queue pause`.
struct QueuePauseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Stop workers from claiming jobs of a class.",
        discussion: "Running jobs continue, and new jobs are still accepted. Workers notice the pause within a third of SLUICE_LEASE.")

    @Argument(help: "The class: interactive, standard or batch.") var priority: JobClass
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws { try await QueuePause.set(priority, paused: true, settings, output) }
}

/// `sluice queue resume`.
struct QueueResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resume", abstract: "Let workers claim jobs of a paused class again.")

    @Argument(help: "The class: interactive, standard or batch.") var priority: JobClass
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws { try await QueuePause.set(priority, paused: false, settings, output) }
}

/// The common part of pausing and resuming.
private enum QueuePause {
    static func set(_ priority: JobClass, paused: Bool, _ settings: SettingsOptions, _ output: JSONOption) async throws {
        let changed = try await settings.withQueue { try await $0.queue.pause(priority, paused) }
        if output.json {
            StandardOutput.writeLine(["class": .string(priority.rawValue), "paused": .bool(paused), "changed": .bool(changed)])
        } else {
            StandardOutput.write(
                "\(priority.rawValue) is \(changed ? "" : "already ")\(paused ? "paused" : changed ? "resumed" : "open")\n")
        }
    }
}
