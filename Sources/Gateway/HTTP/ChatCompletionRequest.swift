import Contract
import JSONCodec

/// The parsed body of `POST /v1/chat/completions`. The gateway reads a few fields; the whole body is sent to the upstream.
struct ChatCompletionRequest: Sendable, Equatable {
    /// The fields that determine the form of the response.
    struct Options: Sendable, Equatable {
        let streams: Bool
        let includesUsage: Bool
        /// The requested model. The response names it until an upstream has reported the actual one.
        let model: String?
    }

    let body: JSONObject
    let options: Options

    /// - Parameter maximumDepth: maximum nesting depth of the JSON.
    /// - Throws: status 400 with the name of the invalid field.
    init(parsing bytes: [UInt8], maximumDepth: Int) throws(HTTPErrorResponse) {
        let json: JSON
        do { json = try JSON(parsing: bytes, maximumDepth: maximumDepth) } catch {
            throw HTTPErrorResponse.invalid("the body is not JSON: \(error)")
        }
        guard case .object(let body) = json else { throw HTTPErrorResponse.invalid("the body is not a JSON object") }
        guard let messages = body["messages"]?.array, !messages.isEmpty, messages.allSatisfy({ $0.object != nil }) else {
            throw HTTPErrorResponse.invalid("\"messages\" must be a list of at least one message object")
        }
        switch body["n"] {
        case nil, .null: break
        case .some(let number) where number.integer == 1: break
        default: throw HTTPErrorResponse.invalid("\"n\" must be 1", code: "unsupported_parameter")
        }
        if let field = Self.notCarried(in: body) { throw HTTPErrorResponse.notCarried(field) }
        self.body = body
        let (includesUsage, model): (Bool, String?)
        let streams = try Self.flag(body["stream"], name: "stream")
        switch body["stream_options"] {
        case nil, .null: includesUsage = false
        case .object(let options): includesUsage = try Self.flag(options["include_usage"], name: "stream_options.include_usage")
        default: throw HTTPErrorResponse.invalid("\"stream_options\" must be an object")
        }
        switch body["model"] {
        case nil, .null: model = nil
        case .string(let name) where name.utf8.count > NameLimit.model:
            throw HTTPErrorResponse.invalid("\"model\" is longer than \(NameLimit.model) bytes")
        case .string(let name): model = name.isEmpty ? nil : name
        default: throw HTTPErrorResponse.invalid("\"model\" must be a string")
        }
        options = Options(streams: streams, includesUsage: includesUsage, model: model)
    }

    /// The first field whose result an answer could not carry: log probabilities, audio and citations.
    static func notCarried(in body: JSONObject) -> String? {
        for name in ["logprobs", "top_logprobs", "audio", "web_search_options"] {
            switch body[name] {
            case nil, .null, .bool(false): break
            default: return name
            }
        }
        guard let modalities = body["modalities"], !modalities.isNull else { return nil }
        let isTextOnly = modalities.array?.allSatisfy { $0.string == "text" } ?? false
        return isTextOnly ? nil : "modalities"
    }

    /// The value of an optional Boolean field; false when it is absent or null.
    private static func flag(_ value: JSON?, name: String) throws(HTTPErrorResponse) -> Bool {
        guard let value, !value.isNull else { return false }
        guard let flag = value.bool else { throw HTTPErrorResponse.invalid("\"\(name)\" must be true or false") }
        return flag
    }
}
