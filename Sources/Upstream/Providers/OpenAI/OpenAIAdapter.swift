import Contract
import JSONCodec

/// OpenAI's chat completions and everything that speaks like them (DashScope's compatible mode, vLLM, SGLang, LM Studio).
struct OpenAIAdapter: UpstreamAdapter {
    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        try RequestRules.check(request.body)
        var body = request.body
        if let text = request.continuation, !text.isEmpty { try Self.continueAnswer(text, upstream: upstream, body: &body) }
        body["stream"] = true
        var options = body["stream_options"]?.object ?? JSONObject()
        options["include_usage"] = true
        body["stream_options"] = .object(options)
        var headers = RequestRules.headers(of: request)
        if let key = try RequestRules.key(of: upstream) { headers.append("Authorization: Bearer \(key)") }
        return HTTPRequest(url: RequestRules.url(upstream, "/chat/completions"), headers: headers, body: JSON.object(body).bytes)
    }

    /// Puts what was generated before as the beginning of the assistant's message, in the way that the upstream knows.
    static func continueAnswer(_ text: String, upstream: UpstreamConfiguration, body: inout JSONObject) throws(Failure) {
        guard upstream.prefix != .none else {
            throw Failure(.unsupportedParameter, "upstream \(upstream.name) cannot continue an answer (its \"prefix\" is none)")
        }
        var messages = body["messages"]?.array ?? []
        var message = JSONObject()
        if let last = messages.last?.object, last["role"]?.string == "assistant" {
            // The job itself began the answer: what was generated goes on from there.
            message = last
            message["content"] = .string((last["content"]?.string ?? "") + text)
            messages.removeLast()
        } else {
            message["role"] = "assistant"
            message["content"] = .string(text)
        }
        switch upstream.prefix {
        case .partial: message["partial"] = true
        case .prefix: message["prefix"] = true
        case .continue:
            body["continue_final_message"] = true
            body["add_generation_prompt"] = false
        case .none: break
        }
        messages.append(.object(message))
        body["messages"] = .array(messages)
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder {
        switch head.contentType {
        case "text/event-stream": OpenAIStreamDecoder()
        case "text/html", "application/xhtml+xml", "application/octet-stream":
            throw Failure(
                .upstreamProtocol, "the upstream's answer is \(head.contentType) and no event stream", upstreamStatus: head.status)
        // Whether it streams shows in its first byte: the type is often wrong.
        default: OpenAIAnswerSniffer()
        }
    }
}
