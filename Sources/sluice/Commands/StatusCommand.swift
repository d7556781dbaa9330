import ArgumentParser
import JobQueue

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show queues, workers and gateways as they are now.",
        discussion: "WAITING jobs are in nobody's hands, RUNNING ones in a worker's.")

    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        let status = try await Deployment.with(settings) { try await $0.queue.snapshot() }
        if output.json { StandardOutput.writeLine(status.json) } else { StandardOutput.write(status.text) }
    }
}
