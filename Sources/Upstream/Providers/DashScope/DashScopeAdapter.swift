import Contract
import CurlTransport
import JSONCodec
import Support

/// Adapter for DashScope's native generation API (Alibaba Cloud Model Studio, "DashScope API reference"). Its frames all carry usage, so
/// the exact cost of an interrupted answer is known.
struct DashScopeAdapter: UpstreamAdapter {
    /// OpenAI parameters that DashScope does not support.
    private static let unsupported = [
        "frequency_penalty", "logit_bias", "reasoning_effort", "metadata", "store", "service_tier", "modalities", "audio", "prediction",
        "verbosity", "web_search_options", "thinking",
    ]

    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        var body = Conversation.normalized(request.body)
        if let text = request.continuation, !text.isBlank {
            guard upstream.prefix == .partial else {
                throw Failure(
                    .unsupportedParameter, "upstream \(upstream.name) cannot continue an answer: kind dashscope requires \"prefix\" partial"
                )
            }
            try OpenAIAdapter.continueAnswer(text, upstream: upstream, body: &body)
        }
        let chat = try ChatRequest(body)
        body = chat.body
        let hasImages = chat.messages.contains(where: \.hasImages)
        // DashScope's own parameters (`enable_thinking`, `enable_search`...) pass through under the same names. Names are unique here.
        var parameters = JSONObject(chat.rest)
        // Looked up by these few names: a request may have tens of thousands.
        for name in Self.unsupported {
            guard let value = parameters[name] else { continue }
            try ChatRequest.refuse(JSONObject.Member(name: name, value: value), on: upstream)
            parameters[name] = nil
        }
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

    /// Translates a message. Only the content differs from OpenAI's: plain text, or parts without a type for multimodal models.
    private static func message(_ original: JSON, _ message: ChatRequest.Message, hasImages: Bool) -> JSON {
        guard var object = original.object else { return original }
        if message.role == .system { object["role"] = "system" }
        if hasImages {
            object["content"] = .array(
                message.parts.compactMap { part in
                    switch part {
                    case .text(let text): ["text": .string(text)]
                    case .image(let url): ["image": .string(url)]
                    case .reasoning, .cachePoint: nil
                    }
                })
        } else {
            object["content"] = .string(message.text)
        }
        return .object(object)
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder {
        guard AnswerSniffer.accepts(head.contentType) else { throw AnswerSniffer.rejected(head) }
        return AnswerSniffer(head, stream: EventAnswerDecoder<DashScopeStreamReader>(), document: DashScopeDocument.read)
    }
}
