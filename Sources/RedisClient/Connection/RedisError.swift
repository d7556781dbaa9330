import NIOCore

/// An error of a Redis client. The message describes what failed and on which server.
package struct RedisError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        /// The URL is invalid or not supported.
        case invalidURL
        /// There was no connection within the command's deadline, or no server that executes commands. The command was not executed.
        case unavailable
        /// Too many commands are waiting or unanswered. The command was not sent.
        case overloaded
        /// The connection was lost after the command was sent. It is unknown whether the command was executed.
        case connectionLost
        /// There was no reply within the deadline. It is unknown whether the command was executed. The connection is closed.
        case timeout
        /// Redis replied with an error; its text is the message.
        case server
        /// A reply is not valid RESP2, too large, too deeply nested or does not match its command.
        case protocolViolation
        /// The client was shut down.
        case shutdown
    }

    package var code: Code
    package var message: String
    /// Of `.unavailable`: the reply with which the server has refused to execute the command until its deadline, for example
    /// `NOREPLICAS …`. Nil when there was no server to ask.
    package var refusal: String?

    package init(_ code: Code, _ message: String, refusal: String? = nil) {
        self.code = code
        self.message = message
        self.refusal = refusal
    }

    package var description: String { message }
}

extension TimeAmount {
    /// The duration for messages, for example "5 s" or "250 ms".
    var readable: String {
        nanoseconds >= 1_000_000_000 && nanoseconds % 1_000_000_000 == 0
            ? "\(nanoseconds / 1_000_000_000) s" : "\(nanoseconds / 1_000_000) ms"
    }
}
