import Contract
import CurlTransport
import JSONCodec

/// Adapter for Ollama's chat API (github.com/ollama/ollama, docs/api.md).
struct OllamaAdapter: UpstreamAdapter {
    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        let chat = try ChatRequest(request.body)
        var body = JSONObject()
        body["model"] = .string(chat.model)
        var messages = try Self.messages(chat, upstream: upstream)
        if let text = request.continuation, !text.isBlank {
            guard upstream.prefix != .none else {
                throw Failure(.unsupportedParameter, "upstream \(upstream.name) cannot continue an answer (its \"prefix\" is none)")
            }
            messages.append(["role": "assistant", "content": .string(text)])
        }
        body["messages"] = .array(messages)
        body["stream"] = true
        switch chat.toolChoice {
        case nil, .auto?: if !chat.tools.isEmpty { body["tools"] = chat.body["tools"] }
        // Ollama has no tool_choice: "none" is expressed by sending no tools.
        case ChatRequest.ToolChoice.none?: break
        case .required?, .named?: throw ChatRequest.unsupported("tool_choice", on: upstream)
        }
        if chat.parallelCalls == false { throw ChatRequest.unsupported("parallel_tool_calls", on: upstream) }
        switch chat.format {
        case .text: break
        case .object: body["format"] = "json"
        case .schema(let schema): body["format"] = schema
        }
        var options = JSONObject()
        for member in chat.rest {
            switch member.name {
            case "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty": options[member.name] = member.value
            case "reasoning_effort":
                guard let think = Self.thinking(effort: member.value) else { throw ChatRequest.unsupported(member.name, on: upstream) }
                body["think"] = think
            case "think", "keep_alive": body[member.name] = member.value
            default: try ChatRequest.refuse(member, on: upstream)
            }
        }
        if let limit = chat.maximumTokens { options["num_predict"] = .integer(limit) }
        if !chat.stop.isEmpty { options["stop"] = .array(chat.stop.map(JSON.string)) }
        if !options.isEmpty { body["options"] = .object(options) }
        var headers = RequestRules.headers(of: request)
        if let key = try RequestRules.key(of: upstream) { headers.append("Authorization: Bearer \(key)") }
        return HTTPRequest(url: RequestRules.url(upstream, "/api/chat"), headers: headers, body: JSON.object(body).bytes)
    }

    /// The value of `think` for an effort in OpenAI's terms; nil for an effort that Ollama does not have.
    private static func thinking(effort: JSON) -> JSON? {
        switch effort.string {
        case "none": false
        case "low", "medium", "high": effort
        default: nil
        }
    }

    /// Translates messages.
    /// - Throws: `unsupported_parameter` for images that are not data URLs.
    private static func messages(_ chat: ChatRequest, upstream: UpstreamConfiguration) throws(Failure) -> [JSON] {
        /// Tool names by call id: Ollama identifies a tool result by name, OpenAI by call id.
        var names: [String: String] = [:]
        var translated: [JSON] = []
        for message in chat.messages {
            var object = JSONObject()
            switch message.role {
            case .system: object["role"] = "system"
            case .user: object["role"] = "user"
            case .assistant: object["role"] = "assistant"
            case .tool:
                object["role"] = "tool"
                object["tool_name"] = message.callID.flatMap { names[$0] }.map(JSON.string)
            }
            object["content"] = .string(message.text)
            var images: [JSON] = []
            for case .image(let url) in message.parts {
                guard let data = DataURL(url) else {
                    throw Failure(
                        .unsupportedParameter,
                        "upstream \(upstream.name) accepts images only as data URLs in \"image_url\"; it does not fetch URLs")
                }
                images.append(.string(String(data.base64)))
            }
            if !images.isEmpty { object["images"] = .array(images) }
            if !message.calls.isEmpty {
                object["tool_calls"] = .array(
                    message.calls.map { call in
                        names[call.id] = call.name
                        return [
                            "function": [
                                "name": .string(call.name), "arguments": (try? JSON(parsing: call.arguments, rules: .lenient)) ?? [:],
                            ]
                        ]
                    })
            }
            translated.append(.object(object))
        }
        return translated
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder {
        guard head.contentType != "text/html" else {
            throw Failure(
                .upstreamProtocol, "the upstream's response has content type \(head.contentType) instead of application/x-ndjson",
                upstreamStatus: head.status)
        }
        return OllamaStreamDecoder()
    }
}
