import ArgumentParser
import JobQueue
import OperatorTools

/// `sluice status`.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the current state of queues, workers and gateways.",
        discussion: "WAITING jobs are not claimed yet; RUNNING jobs are claimed by a worker.")

    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        let status = try await settings.withQueue { try await $0.queue.snapshot() }
        if output.json { StandardOutput.writeLine(status.json) } else { StandardOutput.write(status.text) }
    }
}
