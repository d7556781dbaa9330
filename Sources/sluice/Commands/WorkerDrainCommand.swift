import ArgumentParser
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice worker-drain`.
struct WorkerDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker-drain",
        abstract: "Make a worker drain and end, as SIGTERM does.",
        discussion:
            "The worker finishes running jobs within its SLUICE_DRAIN_TIMEOUT and hands back the rest."
    )

    @Argument(help: "The worker's name as shown by sluice status.") var name: String
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        guard try await settings.withQueue({ try await $0.queue.drain(worker: name) }) else {
            throw CommandFailure(.failed, "sluice: no worker \(name) is running (sluice status lists them)")
        }
        if output.json {
            StandardOutput.writeLine(["worker": .string(name), "drain": true])
        } else {
            StandardOutput.write("\(name) was asked to drain\n")
        }
    }
}
