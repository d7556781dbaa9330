import JSONCodec

/// A request to a model in a form that belongs to no API. Each API has a codec that reads its requests into a conversation; a job carries it
/// as a chat completions body, which each provider's adapter translates or refuses by field name.
struct Conversation: Sendable, Equatable {
    /// A part of a message.
    enum Part: Sendable, Equatable {
        case text(String)
        /// - Parameters:
        ///   - url: an address or a data URL.
        ///   - detail: the resolution in OpenAI's terms; nil for the default.
        case image(url: String, detail: String? = nil)
        /// Reasoning of an earlier answer. Providers do not take it back from another API, so it is not sent.
        case reasoning(String)
    }

    /// A tool call of an earlier answer; `arguments` is JSON text.
    struct Call: Sendable, Equatable {
        var id: String
        var name: String
        var arguments: String
    }

    enum Message: Sendable, Equatable {
        case system([Part])
        case user([Part])
        case assistant([Part], calls: [Call])
        case toolResult(callID: String, [Part])
    }

    struct Tool: Sendable, Equatable {
        var name: String
        var description: String?
        /// A JSON schema.
        var parameters: JSON?
        var strict: Bool?
    }

    enum ToolChoice: Sendable, Equatable { case auto, none, required, named(String) }

    /// The form of the answer's text.
    enum Format: Sendable, Equatable {
        case text, object
        /// OpenAI's `json_schema` object: name, schema, and optionally description and strict.
        case schema(JSON)
    }

    /// The model's name; nil for the default model.
    var model: String?
    var messages: [Message] = []
    var tools: [Tool] = []
    var toolChoice: ToolChoice?
    var allowsParallelCalls: Bool?
    var maximumTokens: Int?
    var stop: [String] = []
    var format = Format.text
    /// The effort of reasoning in OpenAI's terms.
    var effort: String?
    /// The end user's id.
    var user: String?
    /// Further parameters with the names that chat completions and their extensions use: `temperature`, `top_p`, `top_k`, `thinking`.
    var parameters: [JSONObject.Member] = []

    /// The conversation as a chat completions body.
    var chatBody: JSONObject {
        var body = JSONObject()
        body["model"] = model.map(JSON.string)
        body["messages"] = .array(messages.map(\.chatJSON))
        if !tools.isEmpty { body["tools"] = .array(tools.map(\.chatJSON)) }
        switch toolChoice {
        case nil: break
        case .auto?: body["tool_choice"] = "auto"
        case ToolChoice.none?: body["tool_choice"] = "none"
        case .required?: body["tool_choice"] = "required"
        case .named(let name)?: body["tool_choice"] = ["type": "function", "function": ["name": .string(name)]]
        }
        body["parallel_tool_calls"] = allowsParallelCalls.map(JSON.bool)
        body["max_tokens"] = maximumTokens.map(JSON.integer)
        if !stop.isEmpty { body["stop"] = .array(stop.map(JSON.string)) }
        switch format {
        case .text: break
        case .object: body["response_format"] = ["type": "json_object"]
        case .schema(let schema): body["response_format"] = ["type": "json_schema", "json_schema": schema]
        }
        body["reasoning_effort"] = effort.map(JSON.string)
        body["user"] = user.map(JSON.string)
        for parameter in parameters { body[parameter.name] = parameter.value }
        return body
    }
}

extension Conversation.Message {
    fileprivate var chatJSON: JSON {
        switch self {
        case .system(let parts): return ["role": "system", "content": Conversation.Part.chatContent(parts)]
        case .user(let parts): return ["role": "user", "content": Conversation.Part.chatContent(parts)]
        case .toolResult(let id, let parts):
            return ["role": "tool", "tool_call_id": .string(id), "content": Conversation.Part.chatContent(parts)]
        case .assistant(let parts, let calls):
            var message = JSONObject([.init(name: "role", value: "assistant")])
            let content = Conversation.Part.chatContent(parts)
            message["content"] = content.string == "" && !calls.isEmpty ? .null : content
            if !calls.isEmpty {
                message["tool_calls"] = .array(
                    calls.map { call in
                        [
                            "id": .string(call.id), "type": "function",
                            "function": ["name": .string(call.name), "arguments": .string(call.arguments)],
                        ]
                    })
            }
            return .object(message)
        }
    }
}

extension Conversation.Part {
    /// The parts as a message's content: a string unless there are several parts or images, because every provider takes a string.
    fileprivate static func chatContent(_ parts: [Conversation.Part]) -> JSON {
        var content: [JSON] = []
        for part in parts {
            switch part {
            case .reasoning: break
            case .text(let text): content.append(["type": "text", "text": .string(text)])
            case .image(let url, let detail):
                var image = JSONObject([.init(name: "url", value: .string(url))])
                image["detail"] = detail.map(JSON.string)
                content.append(["type": "image_url", "image_url": .object(image)])
            }
        }
        if content.isEmpty { return "" }
        if content.count == 1, let text = content[0]["text"] { return text }
        return .array(content)
    }
}

extension Conversation.Tool {
    fileprivate var chatJSON: JSON {
        var function = JSONObject([.init(name: "name", value: .string(name))])
        function["description"] = description.map(JSON.string)
        function["parameters"] = parameters
        function["strict"] = strict.map(JSON.bool)
        return ["type": "function", "function": .object(function)]
    }
}
