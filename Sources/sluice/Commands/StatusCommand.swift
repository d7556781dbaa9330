import ArgumentParser
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice status`.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the current state of queues, workers, gateways and Redis servers.",
        discussion: """
            WAITING jobs are not claimed yet; RUNNING jobs are claimed by a worker. A cluster of Redis is shown shard by shard; LAG is what a \
            replica has not received yet.
            """)

    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        let (status, topology) = try await settings.withQueue { connection in
            async let topology = connection.queue.topology()
            return (try await connection.queue.snapshot(), await topology)
        }
        if output.json {
            var json = status.json.object ?? JSONObject()
            json["redis"] = topology.json
            StandardOutput.writeLine(.object(json))
        } else {
            StandardOutput.write("\(status.text)\n\(topology.text)")
        }
    }
}
