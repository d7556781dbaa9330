import HTTPTypes
import JSONCodec

/// The form in which an API reports errors.
enum APIErrorForm {
    /// `{"error":{"message":…,"type":…,"code":…}}`
    case openAI
    /// `{"type":"error","error":{"type":…,"message":…}}`
    case anthropic

    /// The form of the API that a path belongs to.
    init(path: String) { self = path == "/v1/messages" || path.hasPrefix("/v1/messages/") ? .anthropic : .openAI }

    func json(of failure: HTTPErrorResponse) -> JSON {
        switch self {
        case .openAI: return failure.json
        case .anthropic:
            var json = JSONObject([.init(name: "type", value: "error")])
            json["error"] = ["type": .string(Self.anthropicType(failure.status)), "message": .string(failure.message)]
            json["request_id"] = failure.headers[.job].map(JSON.string)
            return .object(json)
        }
    }

    /// The error type of a status (docs.anthropic.com, "Errors").
    private static func anthropicType(_ status: HTTPResponse.Status) -> String {
        switch status.code {
        case 401: "authentication_error"
        case 402: "billing_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 408, 504: "timeout_error"
        case 413: "request_too_large"
        case 429: "rate_limit_error"
        case 503: "overloaded_error"
        case 500...: "api_error"
        default: "invalid_request_error"
        }
    }
}

extension HTTPErrorResponse {
    /// A copy whose message names fields as an API does, instead of as a chat completions body does.
    /// - Parameter names: names in the API by names in the chat completions body.
    func renaming(_ names: [String: String]) -> HTTPErrorResponse {
        guard code == "unsupported_parameter" || code == "invalid_request" else { return self }
        var failure = self
        for (name, renamed) in names { failure.message = failure.message.replacing("\"\(name)\"", with: "\"\(renamed)\"") }
        return failure
    }
}
