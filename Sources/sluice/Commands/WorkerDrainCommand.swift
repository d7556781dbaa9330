import ArgumentParser
import Contract
import RedisClient

struct WorkerDrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker-drain",
        abstract: "Ask a worker to drain and end, as SIGTERM does.",
        discussion:
            "It notices within a third of SLUICE_LEASE, finishes what it runs within its SLUICE_DRAIN_TIMEOUT and hands back the rest.")

    /// A wish that no worker reads does not lie in wait for a later one of the same name.
    private static let expirySeconds = 3_600

    @Argument(help: "The worker's name, as sluice status shows it.") var name: String
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        try await Deployment.with(settings) { deployment in
            guard try await deployment.redis.send("EXISTS", .string(deployment.keys.worker(name))).integer == 1 else {
                throw CommandFailure(.failed, "sluice: no worker \(name) is running (sluice status lists them)")
            }
            _ = try await deployment.redis.send(
                "SET", .string(deployment.keys.drain(name)), "1", "EX", .integer(Self.expirySeconds))
        }
        if output.json {
            StandardOutput.writeLine(["worker": .string(name), "drain": true])
        } else {
            StandardOutput.write("\(name) was asked to drain\n")
        }
    }
}
