/// WebSocket close codes: those of RFC 6455 section 7.4.1 and, from 4000, those of this protocol.
enum CloseCode: UInt16, Sendable {
    case normal = 1000
    /// The gateway drains, or the session moved to another connection.
    case goingAway = 1001
    case protocolError = 1002
    case unsupportedData = 1003
    case invalidPayload = 1007
    case messageTooBig = 1009
    /// A limit on sockets, memory or password checks is reached; try again later.
    case overloaded = 1013
    /// Authentication failed, or the session expired.
    case unauthorized = 4401
    case forbidden = 4403
    /// REGISTER did not arrive within the timeout.
    case notRegistered = 4408
    /// The message rate limit was exceeded.
    case tooManyMessages = 4429
    /// The client reads too slowly.
    case tooSlow = 4430
    /// Nothing was received for two heartbeat intervals.
    case silent = 4432
}
