import Contract
import JSONCodec
import Support

/// A provider's error, from the body of an error response or from a frame inside a stream. The forms of all dialects are accepted:
/// `{"error":{"message","type","code"}}`, `{"error":"..."}`, `{"code","message","request_id"}`, `{"object":"error","message","code"}` and
/// `{"type":"error","error":{"type","message"},"request_id"}`; and those of gateways: any of these in a list, `detail`, `errors`,
/// `error_message` with `error_type` or `error_code`.
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
        func word(_ names: String...) -> String? {
            names.lazy.compactMap { name -> String? in
                switch json[name] {
                case .string(let text), .number(let text): text.isEmpty ? nil : text.cut(toBytes: Self.maximumWordBytes)
                default: nil
                }
            }.first
        }
        message = bounded(json.object == nil ? Self.words(in: json) : Self.message(in: json)) ?? ""
        code = word("code", "error_code")
        type = word("type", "status", "error_type")
        requestID = bounded(json["request_id"]?.string)
    }

    /// The members that hold an error's message, in order of preference.
    private static let messageNames = ["message", "msg", "detail", "error_message", "error_msg", "error_description", "errors"]

    /// The message in an error object: text, or the texts in a list or object such as FastAPI's `detail`. Nil if there is none.
    private static func message(in json: JSON) -> String? {
        for name in messageNames {
            if let text = words(in: json[name]) { return text }
        }
        return nil
    }

    /// The text in any JSON value; of lists and objects that of the first elements. Nil if there is none.
    private static func words(in json: JSON?) -> String? {
        let parts: [String]
        switch json {
        case .string(let text), .number(let text): return text.isEmpty ? nil : text
        case .array(let elements): parts = elements.prefix(8).compactMap { words(in: $0) }
        case .object(let object):
            if let message = message(in: .object(object)) { return message }
            parts = object.members.prefix(8).compactMap { member in words(in: member.value).map { "\(member.name): \($0)" } }
        default: return nil
        }
        return parts.isEmpty ? nil : parts.joined(separator: "; ")
    }

    /// - Parameter member: The value of an `error` member. Nil if it says that there is no error: null, false, or an empty string or list.
    init?(member: JSON) {
        switch member {
        case .null, .bool(false), .string(""), .array([]): return nil
        case .array(let elements): self = elements.lazy.compactMap { ProviderError(document: $0) }.first ?? ProviderError(elements[0])
        default: self.init(member)
        }
    }

    /// Finds the error in an error response or an error frame, which may be a list. Returns nil if it holds no error in a known form.
    init?(document json: JSON) {
        if case .array(let elements) = json {
            guard let error = elements.lazy.compactMap({ ProviderError(document: $0) }).first else { return nil }
            self = error
            return
        }
        guard json.object != nil else { return nil }
        if let error = json["error"], let found = ProviderError(member: error) {
            self = found
            let outer = ProviderError(json)
            if message.isEmpty { message = outer.message }
            requestID = requestID ?? outer.requestID
        } else {
            self.init(json)
            guard !message.isEmpty || code != nil else { return nil }
        }
    }

    /// Finds the error in a frame. Returns nil if it holds none.
    /// - Throws: `JSONError` for invalid JSON.
    init?(scanning bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        self.init(document: try scanner.value())
    }

    /// Parses the body of an error response. Returns nil if it holds no error in a known form.
    init?(body: [UInt8]) {
        guard let parsed = try? JSON(upstream: body) else { return nil }
        self.init(document: parsed)
    }

    /// Maps the provider's code and type to a failure code. Returns nil if they are unknown.
    ///
    /// `insufficient_quota` means an exhausted balance for OpenAI and throttling for DashScope, where it comes with `Throttling` or a
    /// message about the "allocated quota".
    func failureCode(kind: UpstreamConfiguration.Kind?) -> FailureCode? {
        let words = [code, type].compactMap { $0?.lowercased() }
        if words.contains(where: { $0.contains("overload") }) { return .overloaded }
        for word in words {
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
            case "modelunavailable", "model_unavailable", "service_unavailable": return .overloaded
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
