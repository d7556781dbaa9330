import Logging
import NIOCore
import NIOPosix
import RedisClient

/// An operator command's connection to the queue. It uses Redis only, so that it works while no node is running.
package struct QueueConnection: Sendable {
    /// Sends commands on the connection.
    package let queue: JobProducer
    private let url: RedisURL
    private let settings: RedisSettings

    /// The address of Redis without the password.
    package var address: String { "\(url)" }

    /// Connects to Redis, calls `body` and disconnects.
    /// - Parameters:
    ///   - redis: timeouts are replaced by `timeout`.
    ///   - timeout: maximum time of connecting, and of each command.
    /// - Throws: `QueueConnectionError` for errors of Redis; other errors of `body`.
    package static func with<Result: Sendable>(
        url: RedisURL, redis: RedisSettings = RedisSettings(), queue: QueueSettings = QueueSettings(), timeout: Duration = .seconds(4),
        _ body: @Sendable (QueueConnection) async throws -> Result
    ) async throws -> Result {
        var settings = redis
        settings.connectTimeout = TimeAmount(timeout)
        settings.commandTimeout = TimeAmount(timeout)
        let client = RedisClient(
            url: url, settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: "operator", logger: silent)
        let run = Task { await client.run() }
        defer {
            client.shutdown()
            run.cancel()
        }
        do {
            return try await body(QueueConnection(queue: JobProducer(redis: client, settings: queue), url: url, settings: settings))
        } catch let error as RedisError {
            throw QueueConnectionError(error, address: "\(url)")
        }
    }

    /// Waits until a server that is starting answers a PING.
    /// - Throws: `QueueConnectionError` when the URL is invalid or there is no answer within `timeout`.
    package static func waitForServer(at url: String, timeout: Duration) async throws {
        let parsed: RedisURL
        do throws(RedisError) { parsed = try RedisURL(url) } catch { throw QueueConnectionError(error, address: url) }
        try await with(url: parsed, timeout: timeout) { _ = try await $0.queue.redis.send("PING") }
    }

    /// Connects a subscriber, calls `body` with an event feed and disconnects the subscriber.
    package func withFeed<Result: Sendable>(_ body: (EventFeed) async throws -> Result) async throws -> Result {
        let eventLoop = queue.redis.eventLoop
        let subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: eventLoop, name: "operator", logger: Self.silent)
        let run = Task { await subscriber.run() }
        defer {
            subscriber.shutdown()
            run.cancel()
        }
        return try await body(EventFeed(queue: queue, subscriber: subscriber, eventLoop: eventLoop, logger: Self.silent))
    }

    /// A logger without output. Commands print their own messages.
    private static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

/// An error of Redis during an operator command.
package struct QueueConnectionError: Error, Sendable, CustomStringConvertible {
    /// The address of Redis without the password.
    package let address: String
    /// Whether there was no answer, as opposed to an answer that is an error.
    package let isUnreachable: Bool
    package let message: String

    init(_ error: RedisError, address: String) {
        self.address = address
        message = error.message
        switch error.code {
        case .unavailable, .connectionLost, .timeout, .shutdown: isUnreachable = true
        case .invalidURL, .overloaded, .server, .protocolViolation: isUnreachable = false
        }
    }

    package var description: String { "Redis at \(address)\(isUnreachable ? " is unreachable" : ""): \(message)" }
}
