import Contract
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient

/// A connection of an operator command to a deployment. It uses Redis only, so that it works while no node is running.
struct Deployment: Sendable {
    /// Timeout of a Redis command, and of connecting.
    private static let timeout = TimeAmount.seconds(4)

    let queue: JobProducer
    let url: RedisURL
    private let settings: RedisSettings

    var redis: RedisClient { queue.redis }
    var keys: Keys { queue.keys }

    /// Connects to Redis, calls `body` and disconnects.
    /// - Throws: `SettingFaults`; `CommandFailure` for Redis errors, with status 69 when Redis is unreachable; errors of `body`.
    static func with<Result: Sendable>(
        _ options: SettingsOptions, _ body: @Sendable (Deployment) async throws -> Result
    ) async throws -> Result {
        var reader = SettingsReader(options.source)
        let found = reader.deployment()
        try reader.finish()
        guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL is invalid") }
        var settings = found.redis
        settings.connectTimeout = timeout
        settings.commandTimeout = timeout
        let redis = RedisClient(
            url: found.redisURL, settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: "operator",
            logger: .silent)
        let deployment = Deployment(queue: JobProducer(redis: redis, settings: found.queue), url: found.redisURL, settings: settings)
        let connection = Task { await redis.run() }
        defer {
            redis.shutdown()
            connection.cancel()
        }
        do {
            return try await body(deployment)
        } catch let error as RedisError {
            throw deployment.failure(error)
        }
    }

    /// Connects a subscriber, calls `body` with an event feed and disconnects.
    func withFeed<Result: Sendable>(_ body: (EventFeed) async throws -> Result) async throws -> Result {
        let subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: redis.eventLoop, name: "operator", logger: .silent)
        let connection = Task { await subscriber.run() }
        defer {
            subscriber.shutdown()
            connection.cancel()
        }
        return try await body(EventFeed(queue: queue, subscriber: subscriber, eventLoop: redis.eventLoop, logger: .silent))
    }

    /// The error of a command for an error of Redis.
    private func failure(_ error: RedisError) -> CommandFailure {
        switch error.code {
        case .unavailable, .connectionLost, .timeout, .shutdown:
            CommandFailure(.unavailable, "sluice: Redis at \(url) is unreachable: \(error.message) (SLUICE_REDIS_URL sets its address)")
        default:
            CommandFailure(.failed, "sluice: Redis at \(url): \(error.message)")
        }
    }
}

extension Logger {
    /// A logger without output. Commands print their own messages.
    static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

extension Deployment {
    /// Finds keys by pattern with at most 2,000 SCAN commands.
    /// - Returns: the sorted keys, and whether more may exist. There may be more keys than `limit`.
    func keys(matching pattern: String, limit: Int) async throws(RedisError) -> (keys: [String], isCut: Bool) {
        var found: Set<String> = []
        var cursor = "0"
        for _ in 0..<2_000 {
            let reply = try await redis.send("SCAN", .string(cursor), "MATCH", .string(pattern), "COUNT", 1_000)
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string else { break }
            for key in parts[1].array ?? [] {
                if let key = key.string { found.insert(key) }
            }
            if next == "0" { return (found.sorted(), false) }
            if found.count >= limit { break }
            cursor = next
        }
        return (found.sorted(), true)
    }
}
