import Contract
import JSONCodec
import Support

/// A provider's error, from the body of an error response or from a frame inside a stream. The forms of all dialects are accepted:
/// `{"error":{"message","type","code"}}`, `{"error":"..."}`, `{"code","message","request_id"}`, `{"object":"error","message","code"}` and
/// `{"type":"error","error":{"type","message"},"request_id"}`.
struct ProviderError: Sendable, Hashable {
    /// Maximum number of bytes of a code or type.
    private static let maximumWordBytes = 128

    var message: String
    var code: String?
    var type: String?
    var requestID: String?

    init(message: String, code: String? = nil, type: String? = nil) {
        self.message = message.cut(toBytes: HTTPFailure.keptMessageBytes * 4)
        self.code = code?.cut(toBytes: Self.maximumWordBytes)
        self.type = type?.cut(toBytes: Self.maximumWordBytes)
    }

    /// - Parameter json: The error object or string itself, not the object that contains it.
    init(_ json: JSON) {
        // Longer than the final message, so that a key near the end is still found and redacted.
        func bounded(_ text: String?) -> String? { text?.cut(toBytes: HTTPFailure.keptMessageBytes * 4) }
        func word(_ value: JSON?) -> String? { text(value)?.cut(toBytes: Self.maximumWordBytes) }
        func text(_ value: JSON?) -> String? {
            switch value {
            case .string(let text): text
            case .number(let text): text
            default: nil
            }
        }
        message = bounded(json.string ?? text(json["message"]) ?? text(json["msg"]) ?? text(json["detail"])) ?? ""
        code = word(json["code"])
        type = word(json["type"]) ?? word(json["status"])
        requestID = bounded(text(json["request_id"]))
    }

    /// Parses the body of an error response. Returns nil if it holds no error in a known form.
    init?(body: some Sequence<UInt8>) {
        guard let json = try? JSON(parsing: body, rules: .lenient), json.object != nil else { return nil }
        if let error = json["error"], !error.isNull {
            self.init(error)
            if message.isEmpty, let text = json["message"]?.string { message = text.cut(toBytes: HTTPFailure.keptMessageBytes * 4) }
            requestID = requestID ?? json["request_id"]?.string?.cut(toBytes: HTTPFailure.keptMessageBytes * 4)
        } else {
            self.init(json)
            guard !message.isEmpty || code != nil else { return nil }
        }
    }

    /// Maps the provider's code and type to a failure code. Returns nil if they are unknown.
    ///
    /// `insufficient_quota` means an exhausted balance for OpenAI and throttling for DashScope, where it comes with `Throttling` or a
    /// message about the "allocated quota".
    func failureCode(kind: UpstreamConfiguration.Kind?) -> FailureCode? {
        for word in [code, type].compactMap({ $0?.lowercased() }) {
            switch word {
            case "datainspectionfailed", "data_inspection_failed", "content_filter", "content_policy_violation",
                "responsibleaipolicyviolation":
                return .contentFiltered
            case "arrearage", "billing_error", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance":
                return .quotaExhausted
            case "insufficient_quota": return isThrottling(kind: kind) ? .rateLimited : .quotaExhausted
            case "limit_requests", "limit_burst_rate", "rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "requests",
                "tokens",
                "too_many_requests":
                return .rateLimited
            case "overloaded_error", "modelunavailable", "model_unavailable", "service_unavailable", "server_overloaded",
                "engine_overloaded_error":
                return .overloaded
            case "invalid_api_key", "invalidapikey", "authentication_error": return .authentication
            case "permission_error", "permission_denied", "workspace.accessdenied", "accessdenied", "model.accessdenied",
                "accessdenied.unpurchased":
                return .permission
            case "model_not_found", "modelnotfound", "not_found_error": return .modelNotFound
            case "invalid_request_error", "invalidparameter", "invalid_parameter_error", "context_length_exceeded", "badrequesterror",
                "request_too_large", "string_above_max_length":
                return .invalidRequest
            case "internalerror", "internal_error", "server_error", "api_error", "requesttimeout", "internal_server_error", "timeout_error",
                "internalservererror":
                return .upstreamError
            default:
                if word.hasPrefix("throttling") { return .rateLimited }
                if word.hasPrefix("invalidparameter") { return .invalidRequest }
            }
        }
        return nil
    }

    /// Whether `insufficient_quota` means throttling instead of an exhausted balance.
    private func isThrottling(kind: UpstreamConfiguration.Kind?) -> Bool {
        if kind == .dashscope { return true }
        let message = message.lowercased()
        return message.contains("allocated quota") || message.contains("throttl") || message.contains("rate limit")
    }

    /// The failure for an error frame inside a 200 response; `upstream_protocol` if neither code nor status is known.
    func failureInsideStream(kind: UpstreamConfiguration.Kind?, status: Int? = nil) -> Failure {
        // Some gateways put the HTTP status of their upstream into `code`.
        let status = status ?? code.flatMap { Int($0) }.flatMap { (400...599).contains($0) ? $0 : nil }
        let decided = failureCode(kind: kind) ?? status.map { HTTPFailure.code(status: $0) } ?? .upstreamProtocol
        return Failure(decided, "the upstream ended its response with an error: \(shown)", upstreamStatus: status)
    }

    /// The provider's message with its code. Not cut here: a key in the message must be complete to be found and redacted.
    var shown: String {
        let words = message.isEmpty ? "no message" : message
        return (code ?? type).map { "\(words) (\($0))" } ?? words
    }
}
