import Contract
import CurlTransport
import JSONCodec

/// Adapter for OpenAI's chat completions API and compatible servers (DashScope's compatible mode, vLLM, SGLang, LM Studio).
struct OpenAIAdapter: UpstreamAdapter {
    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        try RequestRules.check(request.body)
        var body = Conversation.normalized(request.body)
        if let text = request.continuation, !text.isBlank { try Self.continueAnswer(text, upstream: upstream, body: &body) }
        body["stream"] = true
        var options = body["stream_options"]?.object ?? JSONObject()
        options["include_usage"] = true
        body["stream_options"] = .object(options)
        var headers = RequestRules.headers(of: request)
        if let key = try RequestRules.key(of: upstream) { headers.append("Authorization: Bearer \(key)") }
        return HTTPRequest(url: RequestRules.url(upstream, "/chat/completions"), headers: headers, body: JSON.object(body).bytes)
    }

    /// Adds text generated earlier as the start of the assistant message, in the form that the upstream supports.
    /// - Throws: `unsupported_parameter` if the upstream cannot continue an answer.
    static func continueAnswer(_ text: String, upstream: UpstreamConfiguration, body: inout JSONObject) throws(Failure) {
        guard upstream.prefix != .none else {
            throw Failure(.unsupportedParameter, "upstream \(upstream.name) cannot continue an answer (its \"prefix\" is none)")
        }
        var messages = body["messages"]?.array ?? []
        var message = JSONObject()
        if let last = messages.last?.object, last["role"]?.string == "assistant" {
            // The job already ends with an assistant message: append the generated text to it.
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
        case "text/html", "application/xhtml+xml", "application/octet-stream": throw AnswerSniffer.rejected(head)
        // Any other content type may be wrong.
        default: AnswerSniffer(head, stream: EventAnswerDecoder<OpenAIStreamReader>(), document: OpenAIDocument.read)
        }
    }
}
