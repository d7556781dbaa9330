import Contract
import JSONCodec
import Support

/// `error_code` of an ERROR message.
enum ErrorCode: String, Sendable {
    case authFailed = "AUTH_FAILED"
    case sessionInvalid = "SESSION_INVALID"
    case malformedPayload = "MALFORMED_PAYLOAD"
    /// A piece of a VOICE request has the wrong `stream_seq`.
    case streamSequence = "STREAM_SEQ_ERROR"
    case payloadTooLarge = "PAYLOAD_TOO_LARGE"
    case unsupportedDataType = "UNSUPPORTED_DATA_TYPE"
    case duplicateRequest = "DUPLICATE_REQUEST"
    case rateLimited = "RATE_LIMITED"
    case serverBusy = "SERVER_BUSY"
    case requestTimeout = "REQUEST_TIMEOUT"
    case internalError = "INTERNAL_ERROR"
    case upstreamError = "UPSTREAM_ERROR"

    /// Maps the `failed.code` of a job to the code of the WebSocket protocol.
    init(_ code: FailureCode) {
        self =
            switch code {
            case .rateLimited, .quotaExhausted: .rateLimited
            case .overloaded: .serverBusy
            case .firstTokenTimeout, .idleTimeout, .totalTimeout, .deadlineExceeded: .requestTimeout
            case .internal, .workerLost: .internalError
            case .invalidRequest, .unsupportedParameter, .modelNotFound, .authentication, .permission, .contentFiltered, .upstreamError,
                .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated, .upstreamProtocol, .outputTooLarge:
                .upstreamError
            }
    }
}

/// The content of an ERROR message.
struct ProtocolError: Error, Sendable, Equatable {
    var code: ErrorCode
    /// Text for people, `error_msg`.
    var message: String
    /// `error_detail`: a job's failure code, or empty.
    var detail = ""
    /// Whether the same request may succeed later.
    var retryable = false
    /// Nil when the error belongs to no request, or to none that could be read.
    var requestID: String?

    init(_ code: ErrorCode, _ message: String, detail: String = "", retryable: Bool = false, requestID: String? = nil) {
        self.code = code
        self.message = message
        self.detail = detail
        self.retryable = retryable
        self.requestID = requestID
    }

    static func malformed(_ message: String, requestID: String? = nil) -> ProtocolError {
        ProtocolError(.malformedPayload, message, requestID: requestID)
    }

    /// MALFORMED_PAYLOAD that names a field which the protocol does not have.
    static func unknownField(_ path: String) -> ProtocolError { .malformed("unknown field \"\(path.cut(toBytes: 128))\"") }

    /// The payload of the ERROR message.
    var payload: JSON {
        var members = JSONObject()
        members["error_code"] = .string(code.rawValue)
        members["error_msg"] = .string(message)
        members["error_detail"] = .string(detail)
        members["retryable"] = .bool(retryable)
        members["request_id"] = requestID.map(JSON.string)
        return .object(members)
    }
}

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
