import Contract
import NIOHTTP1

/// Why a WebSocket was not opened: answered by HTTP, before any upgrade.
enum UpgradeRefusal: Sendable, Equatable {
    case origin, draining, full, address

    var status: HTTPResponseStatus {
        switch self {
        case .origin: .forbidden
        case .draining, .full: .serviceUnavailable
        case .address: .tooManyRequests
        }
    }

    private var reason: (message: String, type: String, code: String) {
        switch self {
        case .origin: ("this origin may not connect", "permission_error", "origin_refused")
        case .draining: ("the server is going down; reconnect", "server_error", "draining")
        case .full: ("the server holds as many sockets as it may", "server_error", "overloaded")
        case .address: ("too many sockets from this address", "rate_limit_error", "too_many_sockets")
        }
    }

    /// Of the HTTP error, and in metrics.
    var code: String { reason.code }

    var body: [UInt8] {
        let reason = reason
        let json: JSON = ["error": ["message": .string(reason.message), "type": .string(reason.type), "code": .string(reason.code)]]
        return json.bytes
    }
}
