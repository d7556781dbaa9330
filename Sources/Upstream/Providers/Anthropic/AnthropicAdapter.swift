import Contract
import CurlTransport
import JSONCodec
import Support

/// Adapter for Anthropic's Messages API (docs.anthropic.com, "Messages" and "Streaming messages").
struct AnthropicAdapter: UpstreamAdapter {
    private static let version = "2023-06-01"
    /// Default for `max_tokens`, which is required by Anthropic and optional for OpenAI.
    private static let defaultMaximumTokens = 4_096

    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        try Self.request("/v1/messages", Self.body(request, on: upstream), of: request, on: upstream)
    }

    /// A request with a body.
    /// - Throws: `authentication` for a key that is not a valid header value.
    static func request(
        _ path: String, _ body: JSONObject, of request: GenerationRequest, on upstream: UpstreamConfiguration
    ) throws(Failure) -> HTTPRequest {
        var headers = RequestRules.headers(of: request) + ["anthropic-version: \(version)"]
        if let key = try RequestRules.key(of: upstream) { headers.append("x-api-key: \(key)") }
        return HTTPRequest(url: RequestRules.url(upstream, path), headers: headers, body: JSON.object(body).bytes)
    }

    /// The body of a message.
    /// - Throws: as `request(_:on:)`.
    static func body(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> JSONObject {
        let chat = try ChatRequest(request.body, keepsExtensions: true)
        var body = JSONObject()
        body["model"] = .string(chat.model)
        body["max_tokens"] = .integer(chat.maximumTokens ?? defaultMaximumTokens)
        body["stream"] = true
        body["system"] = try Self.system(chat)
        body["messages"] = .array(try Self.messages(chat, continuation: request.continuation, upstream: upstream))
        try Self.addTools(chat, to: &body)
        if !chat.stop.isEmpty { body["stop_sequences"] = .array(chat.stop.map(JSON.string)) }
        if let user = chat.user { body["metadata"] = ["user_id": .string(user)] }
        try Self.addOutput(chat, to: &body, upstream: upstream)
        for member in chat.extensions?.members ?? [] {
            guard ["cache_control", "service_tier"].contains(member.name) else {
                throw ChatRequest.unsupported("\(Conversation.extensionName).\(member.name)", on: upstream)
            }
            body[member.name] = member.value
        }
        for member in chat.rest {
            switch member.name {
            case "reasoning_effort": break
            case "temperature":
                // Anthropic's maximum is 1, OpenAI's is 2.
                guard let value = member.value.double, value <= 1 else {
                    throw Failure(
                        .unsupportedParameter, "the request's \"temperature\" must be at most 1 for upstream \(upstream.name)")
                }
                body["temperature"] = member.value
            case "top_p", "top_k", "thinking": body[member.name] = member.value
            default: try ChatRequest.refuse(member, on: upstream)
            }
        }
        return body
    }

    /// The system messages: text, or blocks if part of them should be cached. Nil without any.
    private static func system(_ chat: ChatRequest) throws(Failure) -> JSON? {
        let messages = chat.messages.filter { $0.role == .system }
        var blocks: [JSON] = []
        for message in messages { blocks += try Self.blocks(message) }
        if blocks.contains(where: { $0["cache_control"] != nil }) { return .array(blocks) }
        let text = messages.map(\.text).filter { !$0.isBlank }.joined(separator: "\n\n")
        return text.isEmpty ? nil : .string(text)
    }

    /// Translates `response_format` and `reasoning_effort`.
    private static func addOutput(_ chat: ChatRequest, to body: inout JSONObject, upstream: UpstreamConfiguration) throws(Failure) {
        var output = JSONObject()
        if let effort = chat.rest.first(where: { $0.name == "reasoning_effort" })?.value {
            guard ["low", "medium", "high", "xhigh", "max"].contains(effort.string) else {
                throw ChatRequest.unsupported("reasoning_effort", on: upstream)
            }
            output["effort"] = effort
        }
        switch chat.format {
        case .text: break
        case .object: throw ChatRequest.unsupported("response_format", on: upstream)
        case .schema(let schema): output["format"] = ["type": "json_schema", "schema": schema]
        }
        if !output.isEmpty { body["output_config"] = .object(output) }
    }

    /// Translates `tools`, `tool_choice` and `parallel_tool_calls`.
    private static func addTools(_ chat: ChatRequest, to body: inout JSONObject) throws(Failure) {
        guard !chat.tools.isEmpty else { return }
        body["tools"] = .array(
            chat.tools.map { tool in
                var object = JSONObject()
                object["name"] = .string(tool.name)
                object["description"] = tool.description.map(JSON.string)
                object["input_schema"] = tool.parameters ?? ["type": "object", "properties": [:]]
                object["strict"] = tool.strict.map(JSON.bool)
                for name in ["cache_control", "eager_input_streaming"] { object[name] = tool.extensions?[name] }
                return .object(object)
            })
        var choice = JSONObject()
        switch chat.toolChoice {
        case nil, .auto?: choice["type"] = "auto"
        case ChatRequest.ToolChoice.none?: choice["type"] = "none"
        case .required?: choice["type"] = "any"
        case .named(let name)?:
            choice["type"] = "tool"
            choice["name"] = .string(name)
        }
        if chat.parallelCalls == false, chat.toolChoice != ChatRequest.ToolChoice.none { choice["disable_parallel_tool_use"] = true }
        if chat.toolChoice != nil || chat.parallelCalls == false { body["tool_choice"] = .object(choice) }
    }

    /// Translates messages into user and assistant turns. Consecutive messages of one role are merged, because the results of several tool
    /// calls must be in one turn.
    private static func messages(
        _ chat: ChatRequest, continuation: String?, upstream: UpstreamConfiguration
    ) throws(Failure) -> [JSON] {
        var turns: [(role: String, blocks: [JSON])] = []
        func add(_ role: String, _ blocks: [JSON]) {
            guard !blocks.isEmpty else { return }
            if turns.last?.role == role { turns[turns.count - 1].blocks += blocks } else { turns.append((role, blocks)) }
        }
        for message in chat.messages {
            switch message.role {
            case .system: break
            case .user: add("user", try blocks(message))
            case .assistant: add("assistant", try blocks(message) + message.calls.map(toolUse))
            case .tool:
                guard let id = message.callID else { throw Failure(.invalidRequest, "a message of role \"tool\" has no \"tool_call_id\"") }
                add("user", [try toolResult(message, of: id)])
            }
        }
        if let continuation, !continuation.isBlank {
            guard upstream.prefix != .none else {
                throw Failure(.unsupportedParameter, "upstream \(upstream.name) cannot continue an answer (its \"prefix\" is none)")
            }
            // Anthropic rejects a last assistant turn that ends with white space, and removing it would join the texts wrongly.
            guard continuation.last?.isWhitespace == false else {
                throw Failure(.unsupportedParameter, "upstream \(upstream.name) cannot continue text that ends with white space")
            }
            add("assistant", [["type": "text", "text": .string(continuation)]])
        }
        guard !turns.isEmpty else { throw Failure(.invalidRequest, "the request has only system messages; add a user message") }
        return turns.map { ["role": .string($0.role), "content": .array($0.blocks)] }
    }

    /// Translates the result of a tool call.
    private static func toolResult(_ message: ChatRequest.Message, of id: String) throws(Failure) -> JSON {
        var result = JSONObject([.init(name: "type", value: "tool_result"), .init(name: "tool_use_id", value: .string(id))])
        var blocks: [JSON] = []
        for block in try Self.blocks(message) {
            guard var block = block.object else { continue }
            // A cache point counts for the result as a whole.
            result["cache_control"] = block["cache_control"] ?? result["cache_control"]
            block["cache_control"] = nil
            blocks.append(.object(block))
        }
        if message.isError {
            result["is_error"] = true
            if let text = blocks.first?["text"]?.string, text.hasPrefix(Conversation.errorMark) {
                let rest = String(text.dropFirst(Conversation.errorMark.count).drop { $0 == "\n" })
                if rest.isEmpty { blocks.removeFirst() } else { blocks[0] = ["type": "text", "text": .string(rest)] }
            }
        }
        result["content"] = .array(blocks)
        return .object(result)
    }

    /// Translates the parts of a message; blank text is left out, because Anthropic refuses it.
    private static func blocks(_ message: ChatRequest.Message) throws(Failure) -> [JSON] {
        var blocks: [JSON] = []
        for part in message.parts {
            switch part {
            case .text(let text): if !text.isBlank { blocks.append(["type": "text", "text": .string(text)]) }
            case .image(let url):
                if let data = DataURL(url) {
                    blocks.append([
                        "type": "image",
                        "source": ["type": "base64", "media_type": .string(data.mediaType), "data": .string(String(data.base64))],
                    ])
                } else {
                    blocks.append(["type": "image", "source": ["type": "url", "url": .string(url)]])
                }
            case .reasoning(let block): blocks.append(block)
            case .cachePoint(let cache):
                guard var last = blocks.last?.object else { continue }
                last["cache_control"] = cache
                blocks[blocks.count - 1] = .object(last)
            }
        }
        return blocks
    }

    /// Translates a tool call of an earlier assistant message.
    private static func toolUse(_ call: ChatRequest.Call) -> JSON {
        // Arguments that are not a JSON object are an error of the model in an earlier turn. They are wrapped instead of dropped.
        let parsed = try? JSON(parsing: call.arguments, rules: .lenient)
        let input = parsed?.object == nil ? ["arguments": .string(call.arguments)] : parsed ?? .null
        var block = JSONObject([.init(name: "type", value: "tool_use"), .init(name: "id", value: .string(call.id))])
        block["name"] = .string(call.name)
        block["input"] = input
        block["cache_control"] = call.cachePoint
        return .object(block)
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder {
        guard AnswerSniffer.accepts(head.contentType) else { throw AnswerSniffer.rejected(head) }
        return AnswerSniffer(head, stream: EventAnswerDecoder<AnthropicStreamReader>(), document: AnthropicDocument.read)
    }
}
