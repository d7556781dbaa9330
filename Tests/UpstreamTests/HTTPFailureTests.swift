import Contract
import Testing

@testable import CurlTransport
@testable import Upstream

struct HTTPFailureTests {
    private static func failure(
        _ status: Int, _ body: String, kind: UpstreamConfiguration.Kind = .openai, type: String = "application/json",
        retryAfter: String? = nil
    ) -> UpstreamFailure {
        HTTPFailure.failure(
            head: HTTPResponseHead(status: status, contentType: type, retryAfter: retryAfter), body: Array(body.utf8),
            upstream: .at("http://x", kind: kind), secondsSinceEpoch: 784_111_777)
    }

    private static func openAI(_ code: String, _ type: String = "t") -> String {
        #"{"error":{"message":"words","type":"\#(type)","param":null,"code":"\#(code)"}}"#
    }

    private static let table: [(Int, String, UpstreamConfiguration.Kind, FailureCode, Bool)] = [
        (400, openAI("invalid_parameter_error"), .openai, .invalidRequest, false),
        (400, openAI("context_length_exceeded", "invalid_request_error"), .openai, .invalidRequest, false),
        (400, openAI("content_policy_violation"), .openai, .contentFiltered, false),
        (400, openAI("content_filter"), .openai, .contentFiltered, false),
        (400, openAI("data_inspection_failed"), .openai, .contentFiltered, false),
        (400, #"{"code":"DataInspectionFailed","message":"m","request_id":"r"}"#, .dashscope, .contentFiltered, false),
        (400, #"{"code":"Arrearage","message":"m","request_id":"r"}"#, .dashscope, .quotaExhausted, false),
        (400, #"{"code":"InvalidParameter","message":"m","request_id":"r"}"#, .dashscope, .invalidRequest, false),
        (401, openAI("invalid_api_key"), .openai, .authentication, false),
        (403, #"{"code":"Workspace.AccessDenied","message":"m"}"#, .dashscope, .permission, false),
        (403, openAI("insufficient_quota"), .openai, .quotaExhausted, false),
        (404, openAI("model_not_found"), .openai, .modelNotFound, false),
        (404, #"{"error":"model \"x\" not found, try pulling it first"}"#, .ollama, .modelNotFound, false),
        (408, "", .openai, .upstreamError, true),
        (413, "", .openai, .invalidRequest, false),
        (422, "", .openai, .invalidRequest, false),
        (418, "", .openai, .invalidRequest, false),
        (429, openAI("rate_limit_exceeded", "requests"), .openai, .rateLimited, true),
        (429, openAI("insufficient_quota", "insufficient_quota"), .openai, .quotaExhausted, false),
        (
            429,
            #"{"error":{"message":"Allocated quota exceeded, please increase your quota limit","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            .openai, .rateLimited, true
        ),
        (429, #"{"code":"Throttling.AllocationQuota","message":"m","request_id":"r"}"#, .dashscope, .rateLimited, true),
        (429, #"{"code":"insufficient_quota","message":"m"}"#, .dashscope, .rateLimited, true),
        (429, "", .openai, .rateLimited, true),
        (500, #"{"code":"InternalError","message":"m"}"#, .dashscope, .upstreamError, true),
        (502, "<html>bad gateway</html>", .openai, .upstreamError, true),
        (503, #"{"code":"ModelUnavailable","message":"m"}"#, .dashscope, .overloaded, true),
        (
            529, #"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#, .anthropic,
            .overloaded, true
        ),
        (307, "", .openai, .upstreamProtocol, false),
    ]

    @Test(arguments: table)
    func `status and error body determine the code`(
        _ status: Int, _ body: String, _ kind: UpstreamConfiguration.Kind, _ code: FailureCode, _ retryable: Bool
    ) {
        let failure = Self.failure(status, body, kind: kind).failure
        #expect(failure.code == code)
        #expect(failure.retryable == retryable)
        #expect(failure.upstreamStatus == status)
    }

    @Test func `the provider's message and request id are kept`() {
        let failure = Self.failure(
            529, #"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#)
        #expect(failure.failure.message.contains("Overloaded (overloaded_error)"))
        #expect(failure.requestID == "req_1")
    }

    @Test func `the message contains neither keys nor pages`() {
        #expect(!Self.failure(401, #"{"error":{"message":"wrong key: sk-secret-canary!"}}"#).failure.message.contains("canary"))
        #expect(!Self.failure(502, "<html>secret page</html>", type: "text/html").failure.message.contains("page"))
        #expect(!Self.failure(500, "key sk-secret-canary", type: "text/plain").failure.message.contains("canary"))
        // If the text were truncated first, a part of the key would remain.
        for length in 250..<620 {
            let text = String(repeating: "x", count: length) + "sk-secret-canary"
            for body in [text, #"{"error":{"message":"\#(text)"}}"#] {
                #expect(!Self.failure(500, body, type: "text/plain").failure.message.contains("sk-"), "\(length)")
            }
        }
    }

    @Test(
        arguments: [
            ("7", Duration.seconds(7)), ("0", .zero), ("-3", .zero), ("1.5", .milliseconds(1500)), ("1e9", .seconds(86_400)),
            // 784111777 is Sun, 06 Nov 1994 08:49:37 GMT.
            ("Sun, 06 Nov 1994 08:49:47 GMT", .seconds(10)), ("Sun, 06 Nov 1994 08:49:07 GMT", .zero), ("soon", nil), ("Sun, 06 Nov", nil),
            ("nan", nil),
        ] as [(String, Duration?)])
    func `Retry-After`(_ text: String, _ expected: Duration?) {
        #expect(Self.failure(429, "", retryAfter: text).retryAfter == expected)
    }

    @Test(arguments: [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
        ("Tue, 01 Mar 2022 00:00:00 GMT", 1_646_092_800),
    ]) func `HTTP dates`(_ text: String, _ seconds: Int) {
        #expect(RetryAfter.httpDate(text) == seconds)
    }
}
