import Contract
import JSONCodec

/// The items of the Responses API, as messages of a conversation.
enum ResponseItems {
    /// The result of a call that has none, because it was interrupted or ignored: providers refuse a call without a result.
    static let noResult = "[no result: the call was interrupted or ignored]"

    /// Checks an input and gives each item an id.
    /// - Throws: 400 with the name of the item or field that is invalid or not supported.
    static func normalized(_ input: JSON?, id: JobID, _ body: FieldReader) throws(HTTPErrorResponse) -> [JSON] {
        let items: [JSON]
        switch input {
        case .string(let text)?: items = [["type": "message", "role": "user", "content": .string(text)]]
        case .array(let list)? where !list.isEmpty: items = list
        default: throw body.invalid("input", "a string or an array of at least one item")
        }
        _ = try messages(of: items)
        return items.enumerated().map { index, item in
            guard var object = item.object else { return item }
            let type = object["type"]?.string ?? "message"
            object["type"] = .string(type)
            if object["id"]?.string == nil { object["id"] = .string("\(prefix(of: type))_\(id.rawValue)_in\(index)") }
            if type == "message" {
                if let text = object["content"]?.string {
                    let part = object["role"] == "assistant" ? "output_text" : "input_text"
                    var content: JSONObject = JSONObject([
                        .init(name: "type", value: .string(part)), .init(name: "text", value: .string(text)),
                    ])
                    if part == "output_text" { content["annotations"] = [] }
                    object["content"] = [.object(content)]
                }
            }
            if object["status"] == nil, type != "reasoning" { object["status"] = "completed" }
            return .object(object)
        }
    }

    private static func prefix(of type: String) -> String {
        switch type {
        case "function_call": "fc"
        case "function_call_output": "fco"
        case "reasoning": "rs"
        default: "msg"
        }
    }

    /// The items as messages. Calls and text of one answer become one message, the text first: providers refuse text between a call and its
    /// result.
    /// - Throws: 400 with the name of the item or field that is invalid or not supported.
    static func messages(of items: [JSON]) throws(HTTPErrorResponse) -> [Conversation.Message] {
        var messages: [Conversation.Message] = []
        for (index, json) in items.enumerated() {
            var item = try FieldReader(json, at: "input[\(index)]")
            item.ignore("id", "status")
            switch try item.string("type") {
            case nil, "message"?: append(try message(&item), to: &messages)
            case "function_call"?:
                let call = Conversation.Call(
                    id: try item.requiredString("call_id"), name: try item.requiredString("name"),
                    arguments: try item.string("arguments") ?? "{}")
                append(.assistant([], calls: [call]), to: &messages)
            case "function_call_output"?:
                guard let output = item.value("output") else { throw item.invalid("output", "a string or an array") }
                messages.append(.toolResult(callID: try item.requiredString("call_id"), try parts(output, &item, "output")))
            case "reasoning"?:
                item.ignore("summary", "content")
                if let content = try item.string("encrypted_content"), let part = EncryptedReasoning.part(parsing: content) {
                    append(.assistant([part], calls: []), to: &messages)
                }
            default: throw item.unsupported("type")
            }
            try item.finish()
        }
        // Providers refuse a message that is reasoning only.
        return messages.filter { !$0.isReasoningOnly }
    }

    /// Adds a result to each call that has none, and checks that each result has a call.
    /// - Throws: 400 when a result's call is not in the conversation.
    static func closed(_ messages: [Conversation.Message]) throws(HTTPErrorResponse) -> [Conversation.Message] {
        var closed: [Conversation.Message] = []
        /// Calls whose results may follow, in order.
        var open: [String] = []
        func close() {
            for id in open { closed.append(.toolResult(callID: id, [.text(noResult)])) }
            open = []
        }
        for message in messages {
            if case .toolResult(let id, _, _) = message {
                guard let position = open.firstIndex(of: id) else {
                    throw HTTPErrorResponse.invalid("no function call has the \"call_id\" \"\(id.prefix(100))\" of a function_call_output")
                }
                open.remove(at: position)
            } else {
                close()
            }
            closed.append(message)
            if case .assistant(_, let calls) = message { open = calls.map(\.id) }
        }
        close()
        return closed
    }

    /// Appends a message; an assistant's message is joined with the one before it.
    static func append(_ message: Conversation.Message, to messages: inout [Conversation.Message]) {
        if case .assistant(let parts, let calls) = message, case .assistant(let earlier, let earlierCalls)? = messages.last {
            messages[messages.count - 1] = .assistant(earlier + parts, calls: earlierCalls + calls)
        } else {
            messages.append(message)
        }
    }

    private static func message(_ item: inout FieldReader) throws(HTTPErrorResponse) -> Conversation.Message {
        guard let content = item.value("content") else { throw item.invalid("content", "a string or an array") }
        item.ignore("phase")
        let parts = try parts(content, &item, "content")
        switch try item.string("role") {
        case "user": return .user(parts)
        case "system", "developer": return .system(parts)
        case "assistant": return .assistant(parts, calls: [])
        default: throw item.invalid("role", "user, assistant, system or developer")
        }
    }

    /// Reads content: a string, or parts of text and images.
    private static func parts(
        _ content: JSON, _ item: inout FieldReader, _ name: String
    ) throws(HTTPErrorResponse) -> [Conversation.Part] {
        if let text = content.string { return [.text(text)] }
        guard let list = content.array else { throw item.invalid(name, "a string or an array") }
        var parts: [Conversation.Part] = []
        for (index, json) in list.enumerated() {
            var part = try FieldReader(json, at: item.name(of: "\(name)[\(index)]"))
            switch try part.string("type") {
            case "input_text", "output_text", "text":
                guard let text = try part.string("text") else { throw part.invalid("text", "a string") }
                part.ignore("annotations", "logprobs")
                parts.append(.text(text))
            case "refusal": parts.append(.text(try part.string("refusal") ?? ""))
            case "input_image":
                guard let url = try part.string("image_url") else { throw part.unsupported("file_id") }
                parts.append(.image(url: url, detail: try part.string("detail")))
            default: throw part.unsupported("type")
            }
            try part.finish()
        }
        return parts
    }
}

extension Conversation.Message {
    /// Whether an assistant's message contains nothing but reasoning.
    fileprivate var isReasoningOnly: Bool {
        guard case .assistant(let parts, let calls) = self, calls.isEmpty, !parts.isEmpty else { return false }
        return parts.allSatisfy {
            switch $0 {
            case .reasoning, .redactedReasoning: true
            default: false
            }
        }
    }
}
