import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import Support

/// A reason to reject a connection's request before it reaches the router or the WebSocket upgrade. The response is an HTTP error in the
/// common JSON form, and the connection is closed after it.
enum EarlyRefusal: Error, Sendable, Equatable {
    /// A forbidden origin, a draining gateway, too many sockets in total or from one address, or too many connections.
    case origin, draining, full, address, connections
    /// A Host that is not a loopback name, on a gateway without authentication; see `HostRule`.
    case host
    /// A client of the Realtime API whose credential is missing or invalid, or cannot be checked now.
    case unauthenticated(given: Bool), unreachable
    /// A parameter of the Realtime API that is not supported, by name.
    case unsupported(String)
    /// A request that is not valid HTTP/1.1, with a short description of the fault.
    case malformed(String)
    case headTooLarge

    var status: HTTPResponseStatus {
        switch self {
        case .origin, .host: .forbidden
        case .unauthenticated: .unauthorized
        case .draining, .full, .connections, .unreachable: .serviceUnavailable
        case .address: .tooManyRequests
        case .malformed, .unsupported: .badRequest
        case .headTooLarge: .requestHeaderFieldsTooLarge
        }
    }

    private var reason: (message: String, type: String, code: String) {
        switch self {
        case .origin: ("connections from this origin are not allowed", "permission_error", "origin_refused")
        case .host:
            (
                "without authentication this gateway answers only requests for this machine (Host: localhost, 127.0.0.1 or [::1]); set keys, or "
                    + "SLUICE_AUTH_NONE_ANYWHERE=1 if something in front of it authenticates",
                "permission_error", "host_refused"
            )
        case .draining: ("this gateway is draining; reconnect", "server_error", "draining")
        case .full: ("this gateway has reached its limit of sockets; try again later", "server_error", "overloaded")
        case .connections: ("this gateway has reached its limit of connections; try again later", "server_error", "too_many_connections")
        case .address: ("too many sockets from this address", "rate_limit_error", "too_many_sockets")
        case .unauthenticated(let given):
            (
                given ? "invalid API key, token or client secret" : "an API key or token is required: Authorization: Bearer <key>",
                "authentication_error", "invalid_api_key"
            )
        case .unreachable: ("the credential cannot be checked now; try again later", "server_error", "service_unavailable")
        case .unsupported(let name): ("\"\(name)\" is not supported", "invalid_request_error", "unsupported_parameter")
        case .malformed(let fault): (fault, "invalid_request_error", "malformed_request")
        case .headTooLarge: ("the head of the request is too large", "invalid_request_error", "head_too_large")
        }
    }

    /// The error code, in the response and as a metric label.
    var code: String { reason.code }

    /// The metric label for the stage at which the request was rejected.
    private var place: Refusals.Place {
        switch self {
        case .malformed, .headTooLarge, .host: .http
        case .origin, .draining, .full, .address, .connections, .unauthenticated, .unreachable, .unsupported: .upgrade
        }
    }

    /// Whether a retry may succeed; the response then has `Retry-After`.
    private var isTemporary: Bool { [.draining, .full, .address, .connections, .unreachable].contains(self) }

    private var parts: [HTTPServerResponsePart] {
        let reason = reason
        let json: JSON = ["error": ["message": .string(reason.message), "type": .string(reason.type), "code": .string(reason.code)]]
        return Self.parts(status, json, isTemporary: isTemporary)
    }

    /// The parts of the last response on a connection.
    static func parts(
        _ status: HTTPResponseStatus, _ json: JSON, isTemporary: Bool = false, isHead: Bool = false
    ) -> [HTTPServerResponsePart] {
        let body = json.bytes
        var headers: HTTPHeaders = [
            "content-type": "application/json", "content-length": "\(body.count)", "connection": "close",
            "date": DateField.text(WallClock.seconds),
        ]
        if isTemporary { headers.add(name: "retry-after", value: "1") }
        let head = HTTPServerResponsePart.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))
        return isHead ? [head, .end(nil)] : [head, .body(.byteBuffer(ByteBuffer(bytes: body))), .end(nil)]
    }

    /// Sends the response and closes the connection. Must be called at most once per connection, on its event loop.
    /// - Parameter write: writes a part to the calling handler's context.
    func answer(on channel: any Channel, write: (HTTPServerResponsePart) -> Void) {
        Refusals.count(place, code: code)
        for part in parts { write(part) }
        channel.flush()
        Self.closeAfterAnswer(channel)
    }

    /// Closes the sending half after pending writes, and the whole connection one second later.
    /// - Parameter reads: whether the channel's handlers limit what is read until then; otherwise nothing is read.
    static func closeAfterAnswer(_ channel: any Channel, reads: Bool = false) {
        if !reads {
            do { try channel.syncOptions?.setOption(.autoRead, value: false) } catch { return channel.close(promise: nil) }
        }
        // Closing fully while unread bytes are in the receive buffer would make TCP reset the connection, and the client could lose the
        // response.
        channel.close(mode: .output).whenFailure { _ in channel.close(promise: nil) }
        let end = channel.eventLoop.scheduleTask(in: .seconds(1)) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in end.cancel() }
    }
}
