import Contract
import JSONCodec
import Support

/// An OpenAI chat-completions request, parsed for translation into another dialect. Adapters reject unknown parameters by name instead of
/// dropping them.
struct ChatRequest {
    enum Role { case system, user, assistant, tool }
    enum Part {
        case text(String), image(url: String)
        /// Reasoning of an earlier answer as Anthropic's content block.
        case reasoning(JSON)
        /// The prompt up to here should be cached; the value of `cache_control`.
        case cachePoint(JSON)
    }
    /// A tool call of an earlier assistant message; `arguments` is unvalidated JSON text.
    struct Call {
        let id, name, arguments: String
        /// The prompt up to here should be cached.
        var cachePoint: JSON?
    }
    /// A function offered to the model; `parameters` is its JSON schema.
    struct Tool {
        let name: String
        let description: String?
        let parameters: JSON?
        let strict: Bool?
        /// Further members of the tool in Anthropic's API.
        let extensions: JSONObject?
    }
    enum ToolChoice: Equatable { case auto, none, required, named(String) }
    /// The requested output format; `schema` holds a JSON schema.
    enum Format { case text, object, schema(JSON) }

    /// A message of the conversation.
    struct Message {
        var role: Role
        var parts: [Part] = []
        var calls: [Call] = []
        /// Id of the tool call that a message of role `tool` answers.
        var callID: String?
        /// Whether the message of role `tool` is an error, which its text says, too.
        var isError = false

        /// All text parts, concatenated.
        var text: String { parts.reduce(into: "") { if case .text(let text) = $1 { $0 += text } } }
        var hasImages: Bool { parts.contains { if case .image = $0 { true } else { false } } }
    }

    private(set) var model = ""
    private(set) var messages: [Message] = []
    private(set) var tools: [Tool] = []
    private(set) var toolChoice: ToolChoice?
    private(set) var parallelCalls: Bool?
    private(set) var maximumTokens: Int?
    private(set) var stop: [String] = []
    private(set) var format = Format.text
    private(set) var user: String?
    /// Further members of the body in Anthropic's API; nil unless extensions are kept.
    private(set) var extensions: JSONObject?
    /// The body, with deprecated fields replaced by their current form.
    let body: JSONObject
    /// All other members that are not null (`temperature`, `seed`...). The dialect translates or rejects them.
    private(set) var rest: [JSONObject.Member] = []

    /// Parses a request body.
    /// - Parameter keepsExtensions: whether to keep what only Anthropic's API understands.
    /// - Throws: `invalid_request` for a body that is not a chat request or repeats a member, `unsupported_parameter` for content that
    ///   cannot be translated.
    init(_ original: JSONObject, keepsExtensions: Bool = false) throws(Failure) {
        try Self.rejectRepeatedMembers(original)
        try RequestRules.check(original)
        let body = try Self.replacingDeprecatedMembers(Conversation.normalized(original, keepsExtensions: keepsExtensions))
        self.body = body
        for member in body.members where !member.value.isNull {
            let (name, value) = (member.name, member.value)
            switch name {
            case "model": model = value.string ?? ""
            case "messages": for message in value.array ?? [] { messages.append(try Self.message(message)) }
            case "tools":
                guard let list = value.array else { throw Self.invalid("tools", "an array") }
                for tool in list { tools.append(try Self.tool(tool)) }
            case "tool_choice": toolChoice = try Self.choice(value)
            case "parallel_tool_calls": parallelCalls = value.bool
            case "max_tokens", "max_completion_tokens":
                guard let number = value.integer, number > 0 else { throw Self.invalid(name, "a whole number above 0") }
                maximumTokens = number
            case "stop": stop = value.string.map { [$0] } ?? (value.array ?? []).compactMap(\.string)
            case "response_format": format = try Self.format(value)
            case "user": user = value.string
            case Conversation.extensionName where keepsExtensions: extensions = value.object
            // The worker always streams, and `n` can only be 1.
            case "stream", "stream_options", "n": break
            default: rest.append(member)
            }
        }
    }

    /// Rejects repeated members. The check of a limit might read one of them and the upstream another.
    private static func rejectRepeatedMembers(_ body: JSONObject) throws(Failure) {
        if let name = body.repeatedName {
            throw Failure(.invalidRequest, "the request has more than one member \"\(name.cut(toBytes: 100))\"")
        }
    }

    /// Replaces the deprecated `functions` and `function_call` with `tools` and `tool_choice`.
    private static func replacingDeprecatedMembers(_ original: JSONObject) throws(Failure) -> JSONObject {
        var body = original
        if let functions = body["functions"], !functions.isNull {
            guard let list = functions.array else { throw invalid("functions", "an array") }
            guard body["tools"] == nil else {
                throw Failure(.invalidRequest, "the request has both \"functions\" and \"tools\"; use \"tools\"")
            }
            body["tools"] = .array(list.map { ["type": "function", "function": $0] })
        }
        if let choice = body["function_call"], !choice.isNull {
            body["tool_choice"] = choice.string == nil ? ["type": "function", "function": choice] : choice
        }
        body["functions"] = nil
        body["function_call"] = nil
        return body
    }

    /// Rejects a member that the dialect did not translate. Members with their default value are ignored: penalties of 0, `logprobs` and
    /// `store` of false.
    static func refuse(_ member: JSONObject.Member, on upstream: UpstreamConfiguration) throws(Failure) {
        if member.name == "presence_penalty" || member.name == "frequency_penalty", member.value.double == 0 { return }
        if member.value == false, ["logprobs", "store"].contains(member.name) { return }
        throw unsupported(member.name, on: upstream)
    }

    /// The failure for a parameter that an upstream's API does not have.
    static func unsupported(_ name: String, on upstream: UpstreamConfiguration) -> Failure {
        Failure(
            .unsupportedParameter,
            "the request's \"\(name.cut(toBytes: 100))\" is not supported by upstream \(upstream.name) (kind \(upstream.kind.rawValue))")
    }

    /// The failure for a member with an invalid value.
    private static func invalid(_ name: String, _ expected: String) -> Failure {
        Failure(.invalidRequest, "the request's \"\(name)\" is not \(expected)")
    }

    /// Parses a message.
    /// - Throws: `invalid_request` for an unknown role or content of the wrong type, `unsupported_parameter` for parts that cannot be
    ///   translated.
    private static func message(_ json: JSON) throws(Failure) -> Message {
        let role: Role
        switch json["role"]?.string {
        case "system", "developer": role = .system
        case "user": role = .user
        case "assistant": role = .assistant
        case "tool": role = .tool
        case let other:
            throw Failure(
                .invalidRequest,
                "a message's \"role\" is \"\((other ?? "").cut(toBytes: 40))\"; it must be system, developer, user, assistant or tool")
        }
        var message = Message(role: role)
        switch json["content"] {
        case .string(let text): message.parts = [.text(text)]
        case .array(let parts):
            for part in parts {
                message.parts.append(try Self.part(part))
                if let cache = part[Conversation.extensionName]?["cache_control"] { message.parts.append(.cachePoint(cache)) }
            }
        case nil, .null: break
        default: throw invalid("messages[].content", "a string or an array")
        }
        if json["function_call"]?.object != nil {
            throw Failure(.unsupportedParameter, "a message has the deprecated \"function_call\"; use \"tool_calls\"")
        }
        for call in json["tool_calls"]?.array ?? [] {
            guard let name = call["function"]?["name"]?.string else { throw invalid("messages[].tool_calls[].function.name", "a string") }
            message.calls.append(
                Call(
                    id: call["id"]?.string ?? "", name: name, arguments: call["function"]?["arguments"]?.string ?? "{}",
                    cachePoint: call[Conversation.extensionName]?["cache_control"]))
        }
        message.callID = json["tool_call_id"]?.string
        message.isError = json[Conversation.extensionName]?["is_error"] == true
        return message
    }

    private static func part(_ json: JSON) throws(Failure) -> Part {
        switch json["type"]?.string {
        case "text", nil:
            guard let text = json["text"]?.string else { throw invalid("messages[].content[].text", "a string") }
            return .text(text)
        case "image_url":
            guard let url = json["image_url"]?["url"]?.string ?? json["image_url"]?.string else {
                throw invalid("messages[].content[].image_url.url", "a string")
            }
            if let detail = json["image_url"]?["detail"]?.string, detail != "auto" {
                throw Failure(
                    .unsupportedParameter,
                    "the \"detail\" \"\(detail.cut(toBytes: 40))\" of an image is not supported by this kind of upstream; use auto")
            }
            return .image(url: url)
        case _ where Conversation.isReasoning(json): return .reasoning(json)
        case let other?:
            throw Failure(
                .unsupportedParameter,
                "a message part of type \"\(other.cut(toBytes: 40))\" is not supported; use text or image_url"
            )
        }
    }

    private static func tool(_ json: JSON) throws(Failure) -> Tool {
        guard json["type"]?.string ?? "function" == "function", let function = json["function"], let name = function["name"]?.string else {
            throw invalid("tools[]", "a function with a name")
        }
        return Tool(
            name: name, description: function["description"]?.string, parameters: function["parameters"], strict: function["strict"]?.bool,
            extensions: json[Conversation.extensionName]?.object)
    }

    private static func choice(_ json: JSON) throws(Failure) -> ToolChoice {
        switch json.string {
        case "auto": return .auto
        case "none": return .none
        case "required": return .required
        default:
            guard let name = json["function"]?["name"]?.string else {
                throw invalid("tool_choice", "auto, none, required or a function's name")
            }
            return .named(name)
        }
    }

    private static func format(_ json: JSON) throws(Failure) -> Format {
        switch json["type"]?.string {
        case "text": return .text
        case "json_object": return .object
        case "json_schema":
            guard let schema = json["json_schema"]?["schema"] else { throw invalid("response_format.json_schema.schema", "present") }
            return .schema(schema)
        default: throw invalid("response_format.type", "text, json_object or json_schema")
        }
    }
}

/// An image embedded in the request as a base64 data URL: `data:image/png;base64,...`.
struct DataURL {
    let mediaType: String
    let base64: Substring

    /// Returns nil for any other URL.
    init?(_ url: String) {
        guard url.hasPrefix("data:"), let comma = url.firstIndex(of: ",") else { return nil }
        let head = url[url.index(url.startIndex, offsetBy: 5)..<comma]
        guard head.hasSuffix(";base64") else { return nil }
        mediaType = String(head.prefix { $0 != ";" })
        base64 = url[url.index(after: comma)...]
    }
}
