/// Why a WebSocket is closed: RFC 6455 section 7.4.1 and the codes of the protocol.
enum CloseCode: UInt16, Sendable {
    case normal = 1000
    /// Draining or taken over: reconnect.
    case goingAway = 1001
    case protocolError = 1002
    case unsupportedData = 1003
    case invalidPayload = 1007
    case messageTooBig = 1009
    case overloaded = 1013
    /// Not authenticated, or the session expired.
    case unauthorized = 4401
    case forbidden = 4403
    case notRegistered = 4408
    case tooManyMessages = 4429
    case tooSlow = 4430
    case silent = 4432
}
