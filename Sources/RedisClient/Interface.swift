import Logging
import NIOCore

package struct RedisURL: Sendable, Hashable, CustomStringConvertible {
    package init(_ text: String) throws(RedisError) { fatalError() }
    /// Without the password.
    package var description: String { fatalError() }
}

package struct RedisSettings: Sendable {
    package var connectTimeout: TimeAmount = .seconds(5)
    /// How long a command may take, waiting for a connection included; on expiry the connection is thrown away.
    package var commandTimeout: TimeAmount = .seconds(5)
    /// Back-off between attempts to connect: from, doubling to, full jitter.
    package var backoff: ClosedRange<TimeAmount> = .milliseconds(20)...(.seconds(2))
    /// CA file for rediss://; nil: the system's.
    package var caFile: String?
    /// Commands that may wait while there is no connection; beyond it a command fails at once.
    package var waitingMaximum = 10_000
    package init() {}
}

/// RESP2.
package enum RESPValue: Sendable, Hashable {
    case null
    case simple(String)
    case error(String)
    case integer(Int64)
    case bulk(ByteBuffer)
    case array([RESPValue])
}

package struct RedisError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        /// Not a URL that this client can use.
        case invalidURL
        /// No connection could be had within the command's deadline: the command was never sent.
        case unavailable
        /// The connection broke after the command was sent: whether it was carried out is unknown.
        case connectionLost
        /// Not answered within its deadline; carried out or not is unknown. The connection is thrown away.
        case timeout
        /// Redis answered with an error (its text is the message).
        case server
        /// Not RESP, too large or too deep.
        case protocolViolation
        case shutdown
    }
    package var code: Code
    package var message: String
    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    package var description: String { message }
}

/// One argument of a command. Literals, strings, integers and bytes.
package enum RedisArgument: Sendable, ExpressibleByStringLiteral, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case string(String)
    case integer(Int)
    case bytes([UInt8])
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
}

/// Commands written one behind the other, sent in one write and answered in order.
package struct RedisPipeline: Sendable {
    package private(set) var buffer = ByteBuffer()
    package private(set) var count = 0
    package init() {}
    package mutating func append(_ arguments: [RedisArgument]) { fatalError() }
    package mutating func append(_ arguments: RedisArgument...) { fatalError() }
    /// The allocation-free way for hot paths: exactly `arguments` calls of `argument` must follow.
    package mutating func begin(arguments: Int) { fatalError() }
    package mutating func argument(_ text: String) { fatalError() }
    package mutating func argument(_ bytes: [UInt8]) { fatalError() }
    package mutating func argument(_ number: Int) { fatalError() }
}

package struct RedisScript: Sendable, Hashable {
    package let name: String
    package let source: String
    /// SHA-1 in hexadecimal.
    package let digest: String
    package init(name: String, source: String) { fatalError() }
}

/// One connection that carries commands, connects and reconnects by itself. Use separate instances for commands and for blocking reads.
package final class RedisClient: Sendable {
    package let eventLoop: any EventLoop
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) { fatalError() }
    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async { fatalError() }
    package func shutdown() { fatalError() }
    package var isConnected: Bool { fatalError() }
    /// Error replies of the server are thrown as `.server`.
    package func send(_ arguments: [RedisArgument], timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue { fatalError() }
    package func send(_ arguments: RedisArgument..., timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue { fatalError() }
    /// One write; error replies stand in the array as `.error`.
    package func send(_ pipeline: RedisPipeline, timeout: TimeAmount? = nil) async throws(RedisError) -> [RESPValue] { fatalError() }
    /// The same without a task: `completion` runs on the event loop.
    package func send(_ pipeline: RedisPipeline, timeout: TimeAmount? = nil, completion: @escaping @Sendable (Result<[RESPValue], RedisError>) -> Void) { fatalError() }
    /// EVALSHA, and EVAL on NOSCRIPT.
    package func run(_ script: RedisScript, keys: [String], arguments: [RedisArgument], timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue { fatalError() }
    /// Called on the event loop after each (re)connect.
    package func onConnect(_ body: @escaping @Sendable () -> Void) { fatalError() }
}

package enum SubscriptionEvent: Sendable {
    case message(ByteBuffer)
    /// Redis confirmed the subscription, for the first time or after a reconnect; what was published before may be missed.
    case subscribed
    case lost
}

/// One connection that carries subscriptions, and after a reconnect subscribes to all of them again.
package final class RedisSubscriber: Sendable {
    package let eventLoop: any EventLoop
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) { fatalError() }
    package func run() async { fatalError() }
    package func shutdown() { fatalError() }
    /// Connected, every subscription confirmed, and PING answered within the last 5 s.
    package var isAlive: Bool { fatalError() }
    /// One handler a channel. `handler` runs on the event loop; must be called on it too. `.subscribed` tells that it is in force.
    package func subscribe(_ channel: String, handler: @escaping @Sendable (SubscriptionEvent) -> Void) { fatalError() }
    package func unsubscribe(_ channel: String) { fatalError() }
}
