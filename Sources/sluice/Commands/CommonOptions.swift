import ArgumentParser
import JobQueue
import OperatorTools

/// The option of every command that reads settings.
struct SettingsOptions: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp("Read settings from a file of NAME=value lines; the environment takes precedence.", valueName: "file"))
    var config: String?

    /// The values of the environment and the file.
    var source: SettingsSource { SettingsSource(file: config) }

    /// Connects to the deployment's Redis, calls `body` and disconnects.
    /// - Throws: `SettingFaults`; `CommandFailure` for errors of Redis, with status 69 when it is unreachable; errors of `body`.
    func withQueue<Result: Sendable>(_ body: @Sendable (QueueConnection) async throws -> Result) async throws -> Result {
        var reader = SettingsReader(source)
        let found = reader.deployment()
        try reader.finish()
        guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL is invalid") }
        do {
            return try await QueueConnection.with(url: found.redisURL, redis: found.redis, queue: found.queue, body)
        } catch let error as QueueConnectionError {
            guard error.isUnreachable else { throw CommandFailure(.failed, "sluice: \(error)") }
            throw CommandFailure(.unavailable, "sluice: \(error) (SLUICE_REDIS_URL sets its address)")
        }
    }
}

/// The option of every command that can print JSON.
struct JSONOption: ParsableArguments {
    @Flag(name: .long, help: "Print JSON instead of text.")
    var json = false
}
