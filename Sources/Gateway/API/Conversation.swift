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
        /// Reasoning of an earlier answer. Only a provider that signed it takes it back, so it is not sent without a signature.
        case reasoning(String, signature: String? = nil)
        /// Reasoning of an earlier answer that only its provider can read.
        case redactedReasoning(String)
        /// A hint that the prompt up to here should be cached, in Anthropic's terms. It follows the part that it marks.
        case cachePoint(JSON)
    }

    /// A tool call of an earlier answer; `arguments` is JSON text.
    struct Call: Sendable, Equatable {
        var id: String
        var name: String
        var arguments: String
        /// As `Part.cachePoint`.
        var cachePoint: JSON?
    }

    enum Message: Sendable, Equatable {
        case system([Part])
        case user([Part])
        case assistant([Part], calls: [Call])
        case toolResult(callID: String, [Part], isError: Bool = false)
    }

    struct Tool: Sendable, Equatable {
        var name: String
        var description: String?
        /// A JSON schema.
        var parameters: JSON?
        var strict: Bool?
        /// Further members in Anthropic's terms: hints that change nothing in the answer.
        var extensions = JSONObject()
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
    /// Further members in Anthropic's terms: hints that change nothing in the answer.
    var extensions = JSONObject()

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
        body.extend(extensions)
        return body
    }
}

extension JSONObject {
    /// Adds the member that holds what only Anthropic's API understands. Adapters for other APIs leave it out.
    fileprivate mutating func extend(_ members: JSONObject) {
        if !members.isEmpty { self["anthropic"] = .object(members) }
    }
}

extension Conversation.Message {
    fileprivate var chatJSON: JSON {
        switch self {
        case .system(let parts): return ["role": "system", "content": Conversation.Part.chatContent(parts)]
        case .user(let parts): return ["role": "user", "content": Conversation.Part.chatContent(parts)]
        case .toolResult(let id, let parts, let isError):
            var message = JSONObject([.init(name: "role", value: "tool"), .init(name: "tool_call_id", value: .string(id))])
            message["content"] = Conversation.Part.chatContent(parts)
            if isError { message.extend(JSONObject([.init(name: "is_error", value: true)])) }
            return .object(message)
        case .assistant(let parts, let calls):
            var message = JSONObject([.init(name: "role", value: "assistant")])
            let content = Conversation.Part.chatContent(parts)
            message["content"] = content.string == "" && !calls.isEmpty ? .null : content
            if !calls.isEmpty {
                message["tool_calls"] = .array(
                    calls.map { call in
                        var object = JSONObject([.init(name: "id", value: .string(call.id)), .init(name: "type", value: "function")])
                        object["function"] = ["name": .string(call.name), "arguments": .string(call.arguments)]
                        if let cache = call.cachePoint { object.extend(JSONObject([.init(name: "cache_control", value: cache)])) }
                        return .object(object)
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
            case .reasoning(let text, let signature):
                guard let signature, !signature.isEmpty else { break }
                content.append(["type": "thinking", "thinking": .string(text), "signature": .string(signature)])
            case .redactedReasoning(let data): content.append(["type": "redacted_thinking", "data": .string(data)])
            case .cachePoint(let cache):
                guard var marked = content.last?.object else { break }
                marked.extend(JSONObject([.init(name: "cache_control", value: cache)]))
                content[content.count - 1] = .object(marked)
            case .text(let text): content.append(["type": "text", "text": .string(text)])
            case .image(let url, let detail):
                var image = JSONObject([.init(name: "url", value: .string(url))])
                image["detail"] = detail.map(JSON.string)
                content.append(["type": "image_url", "image_url": .object(image)])
            }
        }
        if content.isEmpty { return "" }
        if content.count == 1, let text = content[0]["text"], content[0].object?.members.count == 2 { return text }
        return .array(content)
    }
}

extension Conversation.Tool {
    fileprivate var chatJSON: JSON {
        var function = JSONObject([.init(name: "name", value: .string(name))])
        function["description"] = description.map(JSON.string)
        function["parameters"] = parameters
        function["strict"] = strict.map(JSON.bool)
        var tool = JSONObject([.init(name: "type", value: "function"), .init(name: "function", value: .object(function))])
        tool.extend(extensions)
        return .object(tool)
    }
}
