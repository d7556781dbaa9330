import JSONCodec

/// What a chat completions body can hold beyond OpenAI's API, for Anthropic's API only: members `anthropic`, and parts of an assistant's
/// message with the types `thinking` and `redacted_thinking`.
extension Conversation {
    /// The member of a body, message, part, tool call or tool that holds what only Anthropic's API understands.
    static let extensionName = "anthropic"

    /// The start of the text of a tool's message that is an error.
    static let errorMark = "[error]"

    /// Whether a message's part is reasoning of an earlier answer.
    static func isReasoning(_ part: JSON) -> Bool { part["type"] == "thinking" || part["type"] == "redacted_thinking" }

    /// A copy of the body without what only Anthropic's API understands.
    static func withoutExtensions(_ body: JSONObject) -> JSONObject {
        var plain = body
        plain[extensionName] = nil
        if let messages = body["messages"]?.array { plain["messages"] = .array(messages.map(plainMessage)) }
        if let tools = body["tools"]?.array { plain["tools"] = .array(tools.map(withoutMember)) }
        return plain
    }

    private static func withoutMember(_ json: JSON) -> JSON {
        guard var object = json.object, object[extensionName] != nil else { return json }
        object[extensionName] = nil
        return .object(object)
    }

    private static func plainMessage(_ json: JSON) -> JSON {
        guard var message = withoutMember(json).object else { return json }
        if let calls = message["tool_calls"]?.array { message["tool_calls"] = .array(calls.map(withoutMember)) }
        guard let parts = message["content"]?.array else { return .object(message) }
        let kept = parts.filter { !isReasoning($0) }.map(withoutMember)
        if kept != parts { message["content"] = content(kept, role: message["role"]) }
        return .object(message)
    }

    /// Parts that were changed as a message's content: a string where possible, because every provider takes a string.
    private static func content(_ parts: [JSON], role: JSON?) -> JSON {
        let texts = parts.compactMap { $0["text"]?.string }
        guard texts.count == parts.count, texts.count < 2 || role == "system" else { return .array(parts) }
        return .string(texts.joined(separator: "\n\n"))
    }
}
