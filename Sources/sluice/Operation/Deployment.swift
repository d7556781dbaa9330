import Contract
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient

/// An operator's way into a deployment: Redis, and nothing else, so that it works when no node does.
struct Deployment: Sendable {
    /// How long a command may wait for Redis, connecting included.
    private static let patience = TimeAmount.seconds(4)

    let queue: JobQueue
    let url: RedisURL
    private let settings: RedisSettings

    var redis: RedisClient { queue.redis }
    var keys: Keys { queue.keys }

    /// Connects, calls `body`, disconnects.
    /// - Throws: `CommandFailure`; status 69 when Redis is out of reach.
    static func with<Result: Sendable>(
        _ options: SettingsOptions, _ body: @Sendable (Deployment) async throws -> Result
    ) async throws -> Result {
        var reader = SettingsReader(options.source)
        let found = reader.deployment()
        try reader.finish()
        guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL cannot be used") }
        var settings = found.redis
        settings.connectTimeout = patience
        settings.commandTimeout = patience
        let redis = RedisClient(
            url: found.redisURL, settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: "operator",
            logger: .silent)
        let deployment = Deployment(queue: JobQueue(redis: redis, settings: found.queue), url: found.redisURL, settings: settings)
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

    /// Calls `body` with a feed of jobs' events.
    func withFeed<Result: Sendable>(_ body: (EventFeed) async throws -> Result) async throws -> Result {
        let subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: redis.eventLoop, name: "operator", logger: .silent)
        let connection = Task { await subscriber.run() }
        defer {
            subscriber.shutdown()
            connection.cancel()
        }
        return try await body(EventFeed(queue: queue, subscriber: subscriber, eventLoop: redis.eventLoop, logger: .silent))
    }

    private func failure(_ error: RedisError) -> CommandFailure {
        switch error.code {
        case .unavailable, .connectionLost, .timeout, .shutdown:
            CommandFailure(.unavailable, "sluice: Redis at \(url) is out of reach: \(error.message) (SLUICE_REDIS_URL says where it is)")
        default:
            CommandFailure(.failed, "sluice: Redis at \(url): \(error.message)")
        }
    }
}

extension Logger {
    /// Commands tell what they have to tell themselves.
    static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

extension Deployment {
    /// Keys that match a pattern, looking at a bounded part of Redis.
    /// - Returns: whether there may be more than those found.
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
