import Contract
import CurlTransport

/// Decoded output that was not delivered yet.
struct OutputBatch {
    var outputs: [UpstreamOutput] = []
    /// Number of provider chunks with output, including fragments of tool calls: an estimate of the tokens generated.
    var chunks = 0

    var isEmpty: Bool { outputs.isEmpty && chunks == 0 }

    /// Appends token counts, unless both are unknown.
    mutating func appendUsage(promptTokens: Int?, completionTokens: Int?, details: TokenDetails = TokenDetails()) {
        guard promptTokens != nil || completionTokens != nil else { return }
        outputs.append(.usage(promptTokens: promptTokens, completionTokens: completionTokens, details: details))
    }
}

/// Decoder for the body of a 2xx response in one dialect. Its methods throw the failure that ends the call.
protocol StreamDecoder: AnyObject {
    /// Whether the answer is complete. Later data may add to it, but errors do not change it.
    var isComplete: Bool { get }
    /// Whether the upstream said that the answer is over, by a finish reason or an end mark. Little more is expected, and a connection that
    /// stays open is not waited for.
    var isOver: Bool { get }

    /// Decodes a part of the body and appends its output to the batch.
    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure)
    /// Decodes what is left and delivers the tool calls and the finish reason. Called once, when the body has ended properly or nothing more
    /// is waited for. `isComplete` then shows whether the answer was complete.
    func finish(into batch: inout OutputBatch) throws(Failure)
}

/// The dialect of one provider: builds requests and chooses decoders.
protocol UpstreamAdapter: Sendable {
    /// Translates a request.
    /// - Throws: `unsupported_parameter` for content that the upstream does not support, `invalid_request` for an invalid chat request.
    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest
    /// Returns the decoder for a 2xx response.
    /// - Throws: `upstream_protocol` if the content type rules out a stream of this dialect.
    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder
}

extension UpstreamConfiguration {
    /// Whether the upstream's API can count the tokens of a prompt.
    package var countsTokens: Bool { kind == .anthropic }

    /// The adapter for a request.
    /// - Throws: `unsupported_parameter` if the upstream cannot count tokens, but the request asks for it.
    func adapter(for request: GenerationRequest) throws(Failure) -> any UpstreamAdapter {
        guard request.countsTokens else { return adapter }
        guard countsTokens else { throw ChatRequest.unsupported("count_tokens", on: self) }
        return AnthropicTokenCount()
    }

    /// The adapter for this upstream's kind.
    var adapter: any UpstreamAdapter {
        switch kind {
        case .openai: OpenAIAdapter()
        case .dashscope: DashScopeAdapter()
        case .anthropic: AnthropicAdapter()
        case .ollama: OllamaAdapter()
        }
    }
}
