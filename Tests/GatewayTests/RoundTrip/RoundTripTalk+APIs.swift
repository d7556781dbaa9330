import Contract
import JSONCodec

@testable import Gateway

/// The conversation as a request of each API.
extension RoundTripTalk {
    /// The job's body that a gateway makes of the request of an API.
    func chatBody(_ api: API) throws -> JSONObject {
        switch api {
        case .chat: return chatRequest
        case .messages:
            return try MessagesRequest(parsing: JSON.object(messagesRequest).bytes, maximumDepth: 32).conversation.chatBody
        case .responses:
            let request = try ResponsesRequest(
                parsing: JSON.object(responsesRequest).bytes, maximumDepth: 32, id: JobID(partition: 0, milliseconds: 1), defaultModel: "m")
            var conversation = request.conversation
            if let instructions = request.instructions { conversation.messages.append(.system([.text(instructions)])) }
            conversation.messages += try ResponseItems.closed(ResponseItems.messages(of: request.items))
            return conversation.chatBody
        }
    }

    private static func object(_ members: [(String, JSON?)]) -> JSON {
        var object = JSONObject()
        for (name, value) in members { object[name] = value }
        return .object(object)
    }

    // MARK: chat completions

    private var chatRequest: JSONObject {
        var messages: [JSON] = system.isEmpty ? [] : [["role": "system", "content": .string(system)]]
        for group in groups {
            switch group[0] {
            case .user(let pieces):
                let parts: [JSON] = pieces.map {
                    switch $0 {
                    case .text(let text): ["type": "text", "text": .string(text)]
                    case .image(let url): ["type": "image_url", "image_url": ["url": .string(url)]]
                    }
                }
                messages.append(["role": "user", "content": .array(parts)])
            case .result(let id, let text, _): messages.append(["role": "tool", "tool_call_id": .string(id), "content": .string(text)])
            default:
                var text: JSON = .null
                var calls: [JSON] = []
                for item in group {
                    switch item {
                    case .said(let said): text = .string((text.string ?? "") + said)
                    case .call(let id, let name, let arguments):
                        calls.append([
                            "id": .string(id), "type": "function",
                            "function": ["name": .string(name), "arguments": .string(arguments.text)],
                        ])
                    default: break
                    }
                }
                messages.append(
                    Self.object([("role", "assistant"), ("content", text), ("tool_calls", calls.isEmpty ? nil : .array(calls))]))
            }
        }
        var body = JSONObject([.init(name: "model", value: "m"), .init(name: "messages", value: .array(messages))])
        if !tools.isEmpty {
            body["tools"] = .array(
                tools.map {
                    [
                        "type": "function",
                        "function": Self.object([
                            ("name", .string($0.name)), ("description", $0.description.map(JSON.string)), ("parameters", $0.schema),
                            ("strict", $0.strict.map(JSON.bool)),
                        ]),
                    ]
                })
        }
        switch choice {
        case nil: break
        case .auto?: body["tool_choice"] = "auto"
        case Choice.none?: body["tool_choice"] = "none"
        case .required?: body["tool_choice"] = "required"
        case .named(let name)?: body["tool_choice"] = ["type": "function", "function": ["name": .string(name)]]
        }
        body["parallel_tool_calls"] = isParallel.map(JSON.bool)
        body["max_completion_tokens"] = maximumTokens.map(JSON.integer)
        if !stop.isEmpty { body["stop"] = .array(stop.map(JSON.string)) }
        if let schema { body["response_format"] = ["type": "json_schema", "json_schema": ["name": "n", "schema": schema]] }
        if isJSON { body["response_format"] = ["type": "json_object"] }
        body["reasoning_effort"] = effort.map(JSON.string)
        body["temperature"] = temperature.map(JSON.number)
        body["user"] = user.map(JSON.string)
        return body
    }

    // MARK: Anthropic Messages

    private var messagesRequest: JSONObject {
        var messages: [(role: String, blocks: [JSON])] = []
        for item in items {
            let role = item.isAnswer ? "assistant" : "user"
            if messages.last?.role != role { messages.append((role, [])) }
            messages[messages.count - 1].blocks += Self.blocks(item)
        }
        var body = JSONObject([.init(name: "model", value: "m")])
        if !system.isEmpty { body["system"] = .string(system) }
        body["messages"] = .array(messages.map { ["role": .string($0.role), "content": .array($0.blocks)] })
        if !tools.isEmpty {
            body["tools"] = .array(
                tools.map {
                    Self.object([
                        ("name", .string($0.name)), ("description", $0.description.map(JSON.string)), ("input_schema", $0.schema),
                        ("strict", $0.strict.map(JSON.bool)),
                    ])
                })
        }
        if let choice {
            let (type, name): (JSON, JSON?) =
                switch choice {
                case .auto: ("auto", nil)
                case .none: ("none", nil)
                case .required: ("any", nil)
                case .named(let name): ("tool", .string(name))
                }
            body["tool_choice"] = Self.object([
                ("type", type), ("name", name), ("disable_parallel_tool_use", isParallel == false ? true : nil),
            ])
        }
        body["max_tokens"] = maximumTokens.map(JSON.integer)
        if !stop.isEmpty { body["stop_sequences"] = .array(stop.map(JSON.string)) }
        if effort != nil || schema != nil {
            body["output_config"] = Self.object([
                ("effort", effort.map(JSON.string)), ("format", schema.map { ["type": "json_schema", "schema": $0] }),
            ])
        }
        body["temperature"] = temperature.map(JSON.number)
        if let user { body["metadata"] = ["user_id": .string(user)] }
        return body
    }

    private static func blocks(_ item: Item) -> [JSON] {
        switch item {
        case .user(let pieces):
            pieces.map {
                switch $0 {
                case .text(let text): ["type": "text", "text": .string(text)]
                case .image(let url):
                    url.hasPrefix("data:")
                        ? [
                            "type": "image",
                            "source": [
                                "type": "base64", "media_type": "image/png", "data": .string(String(url.drop { $0 != "," }.dropFirst())),
                            ],
                        ] : ["type": "image", "source": ["type": "url", "url": .string(url)]]
                }
            }
        case .thought(let text, let signature): [["type": "thinking", "thinking": .string(text), "signature": .string(signature)]]
        case .redacted(let data): [["type": "redacted_thinking", "data": .string(data)]]
        case .said(let text): [["type": "text", "text": .string(text)]]
        case .call(let id, let name, let arguments):
            [["type": "tool_use", "id": .string(id), "name": .string(name), "input": arguments]]
        case .result(let id, let text, let isError):
            [
                object([
                    ("type", "tool_result"), ("tool_use_id", .string(id)), ("content", .string(text)), ("is_error", isError ? true : nil),
                ])
            ]
        }
    }

    // MARK: OpenAI Responses

    private var responsesRequest: JSONObject {
        var body = JSONObject([.init(name: "model", value: "m")])
        if !system.isEmpty { body["instructions"] = .string(system) }
        body["input"] = .array(
            items.map { item in
                switch item {
                case .user(let pieces):
                    let parts: [JSON] = pieces.map {
                        switch $0 {
                        case .text(let text): ["type": "input_text", "text": .string(text)]
                        case .image(let url): ["type": "input_image", "image_url": .string(url), "detail": "auto"]
                        }
                    }
                    return ["type": "message", "role": "user", "content": .array(parts)]
                case .said(let text):
                    return ["type": "message", "role": "assistant", "content": [["type": "output_text", "text": .string(text)]]]
                case .call(let id, let name, let arguments):
                    return ["type": "function_call", "call_id": .string(id), "name": .string(name), "arguments": .string(arguments.text)]
                case .result(let id, let text, _): return ["type": "function_call_output", "call_id": .string(id), "output": .string(text)]
                case .thought(let text, let signature): return Self.reasoning(text, .signature(signature))
                case .redacted(let data): return Self.reasoning("", .redacted(data))
                }
            })
        if !tools.isEmpty {
            body["tools"] = .array(
                tools.map {
                    Self.object([
                        ("type", "function"), ("name", .string($0.name)), ("description", $0.description.map(JSON.string)),
                        ("parameters", $0.schema), ("strict", $0.strict.map(JSON.bool)),
                    ])
                })
        }
        switch choice {
        case nil: break
        case .auto?: body["tool_choice"] = "auto"
        case Choice.none?: body["tool_choice"] = "none"
        case .required?: body["tool_choice"] = "required"
        case .named(let name)?: body["tool_choice"] = ["type": "function", "name": .string(name)]
        }
        body["parallel_tool_calls"] = isParallel.map(JSON.bool)
        body["max_output_tokens"] = maximumTokens.map(JSON.integer)
        if let schema { body["text"] = ["format": ["type": "json_schema", "name": "n", "schema": schema]] }
        if isJSON { body["text"] = ["format": ["type": "json_object"]] }
        if let effort { body["reasoning"] = ["effort": .string(effort)] }
        body["temperature"] = temperature.map(JSON.number)
        body["user"] = user.map(JSON.string)
        return body
    }

    /// An item as a client keeps it that does not show reasoning.
    private static func reasoning(_ text: String, _ mark: ReasoningMark) -> JSON {
        let content = EncryptedReasoning.content(of: Answer.Part(kind: .reasoning, text: text, mark: mark)) ?? ""
        return ["type": "reasoning", "summary": [], "encrypted_content": .string(content)]
    }
}
