import JSONCodec

/// Brings the messages of a request into a form that every provider accepts. Messages that need no change are passed on as they are.
enum Conversation {
    /// Leaves out blank user and assistant text, merges consecutive user messages, and completes the arguments of earlier tool calls.
    /// - Parameter keepsExtensions: whether to keep what only Anthropic's API understands.
    /// - Returns: the body with its messages replaced; the messages themselves if all of them are blank.
    static func normalized(_ original: JSONObject, keepsExtensions: Bool = false) -> JSONObject {
        var body = keepsExtensions ? original : withoutExtensions(original)
        guard let messages = body["messages"]?.array else { return body }
        var kept: [JSON] = []
        for message in messages {
            guard let message = normalized(message) else { continue }
            if let last = kept.last, let merged = merged(last, message) ?? (keepsExtensions ? nil : mergedCalls(last, message)) {
                kept[kept.count - 1] = merged
            } else {
                kept.append(message)
            }
        }
        guard !kept.isEmpty, kept != messages else { return body }
        body["messages"] = .array(kept)
        return body
    }

    /// Returns nil for a user or assistant message without content.
    private static func normalized(_ message: JSON) -> JSON? {
        guard var object = message.object, let role = object["role"]?.string, role == "user" || role == "assistant" else { return message }
        let hasCalls = completeCalls(in: &object)
        switch object["content"] {
        case .string(let text) where text.isBlank:
            guard hasCalls else { return nil }
            object["content"] = .null
        case .array(let parts):
            let kept = parts.filter { $0["type"]?.string ?? "text" != "text" || $0["text"]?.string?.isBlank != true }
            guard kept.count < parts.count || parts.isEmpty else { break }
            guard !kept.isEmpty || hasCalls else { return nil }
            object["content"] = kept.isEmpty ? .null : .array(kept)
        case nil, .null: if !hasCalls, object.members.allSatisfy({ ["role", "content", "name"].contains($0.name) }) { return nil }
        default: break
        }
        return .object(object)
    }

    /// Completes the arguments of an assistant's tool calls: missing or blank ones are `{}`, JSON becomes its text.
    /// - Returns: whether the message has tool calls.
    private static func completeCalls(in message: inout JSONObject) -> Bool {
        guard var calls = message["tool_calls"]?.array, !calls.isEmpty else {
            return message["function_call"]?.object != nil
        }
        var hasChanges = false
        for position in calls.indices {
            guard var call = calls[position].object, var function = call["function"]?.object else { continue }
            switch function["arguments"] {
            case .string(let text) where !text.isBlank: continue
            case .string, .null, nil: function["arguments"] = "{}"
            case let json?: function["arguments"] = .string(json.text)
            }
            call["function"] = .object(function)
            calls[position] = .object(call)
            hasChanges = true
        }
        if hasChanges { message["tool_calls"] = .array(calls) }
        return true
    }

    /// Merges two consecutive user messages. Returns nil for other messages, and for messages with different members such as `name`.
    private static func merged(_ first: JSON, _ second: JSON) -> JSON? {
        guard var object = first.object, let next = second.object, object["role"] == "user", next["role"] == "user" else { return nil }
        guard let content = object["content"], let addition = next["content"] else { return nil }
        object["content"] = addition
        guard object == next else { return nil }
        switch (content, addition) {
        case (.string(let text), .string(let more)): object["content"] = .string("\(text)\n\n\(more)")
        case (.string, .array), (.array, .string), (.array, .array): object["content"] = .array(parts(content) + parts(addition))
        default: return nil
        }
        return .object(object)
    }

    /// Merges an assistant's message into the one before it when that has tool calls: every provider requires their results next. The order
    /// of calls and text, which Anthropic's API has, is lost. Returns nil for other messages.
    private static func mergedCalls(_ first: JSON, _ second: JSON) -> JSON? {
        guard var object = first.object, object["role"] == "assistant", second["role"] == "assistant",
            let calls = object["tool_calls"]?.array
        else { return nil }
        object["tool_calls"] = .array(calls + (second["tool_calls"]?.array ?? []))
        switch (object["content"] ?? .null, second["content"] ?? .null) {
        case (_, .null): break
        case (.null, let addition): object["content"] = addition
        case (let content, let addition): object["content"] = .array(parts(content) + parts(addition))
        }
        return .object(object)
    }

    private static func parts(_ content: JSON) -> [JSON] {
        content.array ?? [["type": "text", "text": content]]
    }
}

extension String {
    /// Whether the text has nothing but white space.
    var isBlank: Bool {
        // A visible ASCII character settles it without the Unicode properties of the others.
        !utf8.contains { (0x21...0x7e).contains($0) } && allSatisfy(\.isWhitespace)
    }
}
