import Contract
import JSONCodec
import NIOCore
import NIOHTTP1

/// Why a connection gets no further: answered by HTTP in the form of all errors, before any upgrade and without the router, and with the
/// connection's end.
enum EarlyRefusal: Sendable, Equatable {
    case origin, draining, full, address, connections
    /// A Host that a page of another site may have been given for this machine.
    case host
    /// No HTTP/1.1 that could be served, in a few words.
    case malformed(String)
    case headTooLarge

    var status: HTTPResponseStatus {
        switch self {
        case .origin, .host: .forbidden
        case .draining, .full, .connections: .serviceUnavailable
        case .address: .tooManyRequests
        case .malformed: .badRequest
        case .headTooLarge: .requestHeaderFieldsTooLarge
        }
    }

    private var reason: (message: String, type: String, code: String) {
        switch self {
        case .origin: ("this origin may not connect", "permission_error", "origin_refused")
        case .host:
            (
                "without authentication this gateway answers only requests for this machine (Host: localhost, 127.0.0.1 or [::1]); set keys, or "
                    + "SLUICE_AUTH_NONE_ANYWHERE=1 if something in front of it authenticates",
                "permission_error", "host_refused"
            )
        case .draining: ("the server is going down; reconnect", "server_error", "draining")
        case .full: ("the server holds as many sockets as it may", "server_error", "overloaded")
        case .connections: ("too many connections are open; only probes are answered", "server_error", "too_many_connections")
        case .address: ("too many sockets from this address", "rate_limit_error", "too_many_sockets")
        case .malformed(let fault): (fault, "invalid_request_error", "malformed_request")
        case .headTooLarge: ("the head of the request is too large", "invalid_request_error", "head_too_large")
        }
    }

    /// Of the HTTP error, and in metrics.
    var code: String { reason.code }

    private var place: Refusals.Place {
        switch self {
        case .malformed, .headTooLarge, .host: .http
        case .origin, .draining, .full, .address, .connections: .upgrade
        }
    }

    private var isForNow: Bool { [.draining, .full, .address, .connections].contains(self) }

    private var parts: [HTTPServerResponsePart] {
        let reason = reason
        let json: JSON = ["error": ["message": .string(reason.message), "type": .string(reason.type), "code": .string(reason.code)]]
        return Self.parts(status, json, isForNow: isForNow)
    }

    /// An answer that is its connection's last.
    static func parts(
        _ status: HTTPResponseStatus, _ json: JSON, isForNow: Bool = false, isHead: Bool = false
    ) -> [HTTPServerResponsePart] {
        let body = json.bytes
        var headers: HTTPHeaders = [
            "content-type": "application/json", "content-length": "\(body.count)", "connection": "close",
            "date": DateField.text(WallClock.seconds),
        ]
        if isForNow { headers.add(name: "retry-after", value: "1") }
        let head = HTTPServerResponsePart.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))
        return isHead ? [head, .end(nil)] : [head, .body(.byteBuffer(ByteBuffer(bytes: body))), .end(nil)]
    }

    /// Answers and closes; called once a connection.
    /// - Parameter write: writes to the handler's context.
    func answer(on channel: any Channel, write: (HTTPServerResponsePart) -> Void) {
        Refusals.count(place, code: code)
        for part in parts { write(part) }
        channel.flush()
        Self.closeAfterAnswer(channel)
    }

    static func closeAfterAnswer(_ channel: any Channel) {
        // Only our half, and the whole a little later: to close while bytes of the client lie unread resets the connection, and the answer
        // with it.
        channel.close(mode: .output).whenFailure { _ in channel.close(promise: nil) }
        let end = channel.eventLoop.scheduleTask(in: .seconds(1)) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in end.cancel() }
    }
}
