import NIOHTTP1

/// The target of a request line.
enum Route {
    case health
    case models
    case requests(tag: String?, since: UInt64)
    case clearRequests
    case ask(any Dialect.Type)
    case wrongMethod(allow: String)
    case unknown

    /// - Parameter uri: The request target in origin form, with its query.
    init(method: HTTPMethod, uri: String) {
        let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let query = parts.count > 1 ? parts[1] : ""
        switch parts[0] {
        case "/healthz", "/health": self = method == .GET ? .health : .wrongMethod(allow: "GET")
        case "/v1/models", "/models": self = method == .GET ? .models : .wrongMethod(allow: "GET")
        case "/sim/requests":
            switch method {
            case .GET:
                self = .requests(tag: Self.value(of: "tag", in: query), since: Self.value(of: "since", in: query).flatMap(UInt64.init) ?? 0)
            case .DELETE: self = .clearRequests
            default: self = .wrongMethod(allow: "GET, DELETE")
            }
        default:
            guard let dialect = Self.dialect(of: parts[0]) else {
                self = .unknown
                return
            }
            self = method == .POST ? .ask(dialect) : .wrongMethod(allow: "POST")
        }
    }

    /// Paths are accepted with and without the API version, because base URLs of clients have either form.
    private static func dialect(of path: Substring) -> (any Dialect.Type)? {
        switch path {
        case "/v1/chat/completions", "/chat/completions", "/compatible-mode/v1/chat/completions": OpenAIDialect.self
        case "/v1/audio/speech", "/audio/speech": OpenAISpeechDialect.self
        case "/v1/audio/transcriptions", "/audio/transcriptions": OpenAITranscriptionDialect.self
        case "/search/retrieve", "/v1/search/retrieve": RetrievalDialect.self
        case "/v1/messages", "/messages": AnthropicDialect.self
        case "/v1/messages/count_tokens", "/messages/count_tokens": AnthropicTokenCountDialect.self
        case "/api/chat": OllamaDialect.self
        case "/api/v1/services/aigc/text-generation/generation": DashScopeDialect.self
        case "/api/v1/services/aigc/multimodal-generation/generation": DashScopeSpeechDialect.self
        default: nil
        }
    }

    /// The percent-decoded value of the first query parameter with this name.
    private static func value(of name: String, in query: Substring) -> String? {
        for pair in query.split(separator: "&") {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if sides[0] == name { return sides.count > 1 ? decoded(sides[1]) : "" }
        }
        return nil
    }

    /// Decodes percent-encoding and `+`. Invalid escapes are kept.
    private static func decoded(_ text: Substring) -> String {
        var out: [UInt8] = []
        var bytes = text.utf8[...]
        while let byte = bytes.popFirst() {
            if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: bytes.prefix(2), as: UTF8.self), radix: 16), bytes.count >= 2 {
                out.append(value)
                bytes = bytes.dropFirst(2)
            } else {
                out.append(byte == UInt8(ascii: "+") ? 0x20 : byte)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}
