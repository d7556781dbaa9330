import ArgumentParser
import Contract
import JSONCodec
import JobQueue

struct QueueCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "Pause and resume queues.", subcommands: [QueuePauseCommand.self, QueueResumeCommand.self])
}

extension JobClass: ExpressibleByArgument {}

struct QueuePauseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Let no worker take jobs of a class.",
        discussion: "What runs goes on, and new jobs are still accepted. Workers notice within a third of SLUICE_LEASE.")

    @Argument(help: "interactive, standard or batch.") var priority: JobClass
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws { try await QueuePause.set(priority, paused: true, settings, output) }
}

struct QueueResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resume", abstract: "Let workers take jobs of a paused class again.")

    @Argument(help: "interactive, standard or batch.") var priority: JobClass
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws { try await QueuePause.set(priority, paused: false, settings, output) }
}

private enum QueuePause {
    static func set(_ priority: JobClass, paused: Bool, _ settings: SettingsOptions, _ output: JSONOption) async throws {
        let changed = try await Deployment.with(settings) { try await $0.queue.pause(priority, paused) }
        if output.json {
            StandardOutput.writeLine(["class": .string(priority.rawValue), "paused": .bool(paused), "changed": .bool(changed)])
        } else {
            StandardOutput.write(
                "\(priority.rawValue) is \(changed ? "" : "already ")\(paused ? "paused" : changed ? "resumed" : "open")\n")
        }
    }
}
