import Contract
import JSONCodec
import Support

/// DashScope's native generation (Alibaba Cloud Model Studio, "DashScope API reference"): usage on every frame, so that what an interrupted
/// answer cost is known exactly.
struct DashScopeAdapter: UpstreamAdapter {
    private static let refused: Set<String> = [
        "frequency_penalty", "logit_bias", "reasoning_effort", "metadata", "store", "service_tier",
        "modalities",
        "audio", "prediction", "verbosity", "web_search_options",
    ]

    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        var body = request.body
        if let text = request.continuation, !text.isEmpty {
            guard upstream.prefix == .partial else {
                throw Failure(.unsupportedParameter, "upstream \(upstream.name) continues an answer by the prefix \"partial\" only")
            }
            try OpenAIAdapter.continueAnswer(text, upstream: upstream, body: &body)
        }
        let chat = try ChatRequest(body)
        body = chat.body
        let hasImages = chat.messages.contains(where: \.hasImages)
        for member in chat.rest where Self.refused.contains(member.name) { try ChatRequest.refuse(member, on: upstream) }
        // Its own switches (`enable_thinking`, `enable_search`…) go by the same names. Each occurs once.
        var parameters = JSONObject(chat.rest.filter { !Self.refused.contains($0.name) })
        for name in ["tools", "response_format", "parallel_tool_calls"] where body[name]?.isNull == false { parameters[name] = body[name] }
        if let limit = chat.maximumTokens { parameters["max_tokens"] = .integer(limit) }
        if !chat.stop.isEmpty { parameters["stop"] = .array(chat.stop.map(JSON.string)) }
        switch chat.toolChoice {
        case nil: break
        case .auto?, ChatRequest.ToolChoice.none?, .named?: parameters["tool_choice"] = body["tool_choice"]
        case .required?: throw ChatRequest.unsupported("tool_choice", on: upstream)
        }
        parameters["incremental_output"] = true
        parameters["result_format"] = "message"
        let messages = body["messages"]?.array ?? []
        let translated = zip(messages, chat.messages).map { Self.message($0, $1, hasImages: hasImages) }
        let json: JSON = ["model": .string(chat.model), "input": ["messages": .array(translated)], "parameters": .object(parameters)]
        var headers = RequestRules.headers(of: request) + ["X-DashScope-SSE: enable"]
        if let key = try RequestRules.key(of: upstream) { headers.append("Authorization: Bearer \(key)") }
        let service = hasImages ? "multimodal-generation" : "text-generation"
        return HTTPRequest(url: RequestRules.url(upstream, "/services/aigc/\(service)/generation"), headers: headers, body: json.bytes)
    }

    /// Messages are those of OpenAI but for their content: plain text, or parts without a type where pictures may come.
    private static func message(_ original: JSON, _ message: ChatRequest.Message, hasImages: Bool) -> JSON {
        guard var object = original.object else { return original }
        if message.role == .system { object["role"] = "system" }
        if hasImages {
            object["content"] = .array(
                message.parts.map { part in
                    switch part {
                    case .text(let text): ["text": .string(text)]
                    case .image(let url): ["image": .string(url)]
                    }
                })
        } else {
            object["content"] = .string(message.text)
        }
        return .object(object)
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder {
        guard head.contentType == "text/event-stream" || head.contentType.isEmpty || head.contentType == "application/json" else {
            throw Failure(
                .upstreamProtocol, "the upstream's answer is \(head.contentType.cut(toBytes: 100)) and no event stream",
                upstreamStatus: head.status)
        }
        return DashScopeStreamDecoder()
    }
}
