import NIOCore

package struct RedisError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        /// Not a URL that this client can use.
        case invalidURL
        /// No connection could be had within the command's deadline: the command was never sent.
        case unavailable
        /// So much is waiting to be sent or answered that no more is taken: the command was never sent.
        case overloaded
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

extension TimeAmount {
    /// For messages: "5 s", "250 ms".
    var readable: String {
        nanoseconds >= 1_000_000_000 && nanoseconds % 1_000_000_000 == 0
            ? "\(nanoseconds / 1_000_000_000) s" : "\(nanoseconds / 1_000_000) ms"
    }
}
