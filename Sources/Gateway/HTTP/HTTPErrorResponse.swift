import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import NIOCore
import Support

/// An error response, in the form of the API that the request's path belongs to; `json` is OpenAI's:
/// `{"error":{"message":…,"type":…,"code":…}}`.
struct HTTPErrorResponse: Error, HTTPResponseError, Sendable, Equatable {
    var status: HTTPResponse.Status
    var type: String
    var code: String
    var message: String
    var headers = HTTPFields()

    /// - Parameters:
    ///   - type: the error type; nil for the default type of the status.
    ///   - message: human-readable; must not contain a key or a prompt.
    init(_ status: HTTPResponse.Status, code: String, _ message: String, type: String? = nil) {
        self.status = status
        self.type = type ?? Self.type(of: status)
        self.code = code
        self.message = message
        if status == .tooManyRequests || status == .serviceUnavailable { headers[.retryAfter] = "1" }
    }

    var json: JSON {
        ["error": ["message": .string(message), "type": .string(type), "code": .string(code)]]
    }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        .json(APIErrorForm(path: request.uri.path).json(of: self), status: status, headers: headers)
    }

    /// The default error type of a status.
    private static func type(of status: HTTPResponse.Status) -> String {
        switch status.code {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 408, 504: "timeout_error"
        case 409: "conflict_error"
        case 429: "rate_limit_error"
        case 502: "upstream_error"
        case 500...: "server_error"
        default: "invalid_request_error"
        }
    }
}

extension HTTPErrorResponse {
    static func invalid(_ message: String, code: String = "invalid_request") -> HTTPErrorResponse {
        HTTPErrorResponse(.badRequest, code: code, message)
    }

    /// 401 for a missing or invalid credential.
    /// - Parameter given: whether the request had a credential; decides the `WWW-Authenticate` field (RFC 6750, 3.1).
    static func unauthenticated(given: Bool) -> HTTPErrorResponse {
        var failure = HTTPErrorResponse(
            .unauthorized, code: "invalid_api_key",
            given ? "invalid API key or token" : "an API key or token is required: Authorization: Bearer <key>")
        failure.headers[.wwwAuthenticate] = given ? #"Bearer realm="sluice", error="invalid_token""# : #"Bearer realm="sluice""#
        return failure
    }

    /// 404 for a job that does not exist, belongs to another tenant or has no owner; identical, so that ids cannot be probed.
    static let unknownJob = HTTPErrorResponse(.notFound, code: "job_not_found", "no such job")

    static let invalidEventID = HTTPErrorResponse(
        .badRequest, code: "invalid_request", "Last-Event-ID must have the form <attempt>-<seq>")

    static let draining = HTTPErrorResponse(
        .serviceUnavailable, code: "draining", "this gateway is draining; retry on a new connection")

    static let queueFull = HTTPErrorResponse(.tooManyRequests, code: "server_busy", "the job queue is full; try again later")

    static let tooManyWaiting = HTTPErrorResponse(
        .tooManyRequests, code: "server_busy", "too many of your jobs are waiting; try again when some have started")

    static let keyConflict = HTTPErrorResponse(
        .conflict, code: "idempotency_conflict", "this Idempotency-Key was used with a different body; use a new key")

    /// 409 for a repeated request whose answer has expired.
    static let keyExpired = HTTPErrorResponse(
        .conflict, code: "idempotency_expired",
        "the answer to the earlier request with this Idempotency-Key is no longer stored; use a new key")

    /// The tenant's tokens of this day are used up. Retry-After: the time until the next day begins, UTC.
    static var quotaExhausted: HTTPErrorResponse {
        var failure = HTTPErrorResponse(
            .tooManyRequests, code: "quota_exhausted", "your tokens of this day are used up; try again tomorrow (UTC)",
            type: "insufficient_quota")
        failure.headers[.retryAfter] = String(max(1, 86_400 - WallClock.milliseconds / 1_000 % 86_400))
        return failure
    }

    static let tooManyRunning = HTTPErrorResponse(
        .tooManyRequests, code: "rate_limited", "too many of your requests are running; try again when one has ended")

    static let tooManyUnderWay = HTTPErrorResponse(
        .tooManyRequests, code: "rate_limited", "too many of your requests are waiting for a response; try again when one has completed")

    static let tooManyBytes = HTTPErrorResponse(
        .tooManyRequests, code: "rate_limited", "the bodies of your open requests are too large in total; try again when one has completed")

    static let tooManyStreams = HTTPErrorResponse(
        .tooManyRequests, code: "too_many_streams", "too many of your event streams are open; close one or wait for one to end")

    static func tooLarge(_ maximum: Int) -> HTTPErrorResponse {
        HTTPErrorResponse(.contentTooLarge, code: "payload_too_large", "the body is larger than \(maximum) bytes (SLUICE_MAX_BODY)")
    }

    /// 415 for a compressed body; the response names what is accepted (RFC 9110, 15.5.16).
    static let compressed: HTTPErrorResponse = {
        var failure = HTTPErrorResponse(
            .unsupportedMediaType, code: "unsupported_content_encoding",
            "compressed bodies are not supported; send it without Content-Encoding")
        failure.headers[.acceptEncoding] = "identity"
        return failure
    }()

    /// 400 for a field whose result Sluice does not carry to the client.
    static func notCarried(_ field: String) -> HTTPErrorResponse {
        invalid("\"\(field)\" is not supported", code: "unsupported_parameter")
    }

    static let queueUnreachable = HTTPErrorResponse(
        .serviceUnavailable, code: "service_unavailable", "the job queue is unreachable; try again later")

    /// The HTTP form of a job's failure. An upstream's 400, 404 and 429 are passed on; its 401 and 403 become 502, because they mean that
    /// Sluice itself is misconfigured.
    init(_ failure: Failure) {
        let status: HTTPResponse.Status =
            switch failure.code {
            case .invalidRequest, .unsupportedParameter, .contentFiltered: .badRequest
            case .modelNotFound: .notFound
            case .rateLimited, .quotaExhausted: .tooManyRequests
            case .overloaded, .workerLost: .serviceUnavailable
            case .firstTokenTimeout, .idleTimeout, .totalTimeout, .deadlineExceeded: .gatewayTimeout
            case .authentication, .permission, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated,
                .upstreamProtocol, .outputTooLarge, .recognitionFailed, .internal:
                .badGateway
            }
        self.init(status, code: failure.code.rawValue, failure.message)
    }
}

extension Response {
    /// A response with a JSON body.
    static func json(_ json: JSON, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.bytes)))
    }
}

/// Runs an operation on the queue and converts its error into a 503.
func onQueue<Value>(_ body: () async throws(QueueError) -> Value) async throws(HTTPErrorResponse) -> Value {
    do { return try await body() } catch { throw HTTPErrorResponse.queueUnreachable }
}
