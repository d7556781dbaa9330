import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import NIOCore
import RedisClient

/// An answer other than success: `{"error":{"message":…,"type":…,"code":…}}`, as the OpenAI API puts it.
struct HTTPFailure: Error, HTTPResponseError, Sendable, Equatable {
    var status: HTTPResponse.Status
    var type: String
    var code: String
    var message: String
    var headers = HTTPFields()

    /// - Parameters:
    ///   - type: nil: the usual one of the status.
    ///   - message: for people; never holds a key or a prompt.
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
        .json(json, status: status, headers: headers)
    }

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

extension HTTPFailure {
    static func invalid(_ message: String, code: String = "invalid_request") -> HTTPFailure {
        HTTPFailure(.badRequest, code: code, message)
    }

    /// - Parameter given: whether there was a credential at all (RFC 6750, 3.1).
    static func unauthenticated(given: Bool) -> HTTPFailure {
        var failure = HTTPFailure(
            .unauthorized, code: "invalid_api_key",
            given ? "this key or token is not known here" : "a key or token is needed: Authorization: Bearer <key>")
        failure.headers[.wwwAuthenticate] = given ? #"Bearer realm="sluice", error="invalid_token""# : #"Bearer realm="sluice""#
        return failure
    }

    /// The same for a job that is not there, another tenant's and nobody's.
    static let unknownJob = HTTPFailure(.notFound, code: "job_not_found", "no such job")

    static let invalidEventID = HTTPFailure(
        .badRequest, code: "invalid_request", "Last-Event-ID is not an event's id: <attempt>-<seq>")

    static let draining = HTTPFailure(.serviceUnavailable, code: "draining", "this gateway is draining; try again, another will answer")

    static let queueFull = HTTPFailure(.tooManyRequests, code: "server_busy", "too many jobs are waiting; try again later")

    static let tooManyWaiting = HTTPFailure(
        .tooManyRequests, code: "server_busy", "too many of your jobs are waiting; try again when some have run")

    static let tooManyRunning = HTTPFailure(
        .tooManyRequests, code: "rate_limited", "too many of your requests are running; try again when one has ended")

    static let tooManyUnderWay = HTTPFailure(
        .tooManyRequests, code: "rate_limited", "too many of your requests are waiting for their answer; try again when one has it")

    static let tooManyBytes = HTTPFailure(
        .tooManyRequests, code: "rate_limited", "the bodies of your requests hold too many bytes; try again when one is answered")

    static let tooManyStreams = HTTPFailure(
        .tooManyRequests, code: "too_many_streams", "too many of your event streams are open; close one or read it to its end")

    static func tooLarge(_ maximum: Int) -> HTTPFailure {
        HTTPFailure(.contentTooLarge, code: "payload_too_large", "the body is larger than \(maximum) bytes")
    }

    static func redis(_ error: RedisError) -> HTTPFailure {
        HTTPFailure(.serviceUnavailable, code: "service_unavailable", "the queue is out of reach; try again later")
    }

    /// A job's failure as a status: an upstream's 400, 404 and 429 as such; its 401 and 403 are our configuration's fault.
    init(_ failure: Failure) {
        let status: HTTPResponse.Status =
            switch failure.code {
            case .invalidRequest, .unsupportedParameter, .contentFiltered: .badRequest
            case .modelNotFound: .notFound
            case .rateLimited, .quotaExhausted: .tooManyRequests
            case .overloaded, .workerLost: .serviceUnavailable
            case .firstTokenTimeout, .idleTimeout, .totalTimeout, .deadlineExceeded: .gatewayTimeout
            case .authentication, .permission, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated,
                .upstreamProtocol, .outputTooLarge, .internal:
                .badGateway
            }
        self.init(status, code: failure.code.rawValue, failure.message)
    }
}

extension Response {
    static func json(_ json: JSON, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.bytes)))
    }
}

/// Runs what asks Redis, and turns its failure into an answer.
func askingRedis<Value>(_ body: () async throws(RedisError) -> Value) async throws(HTTPFailure) -> Value {
    do { return try await body() } catch { throw HTTPFailure.redis(error) }
}
