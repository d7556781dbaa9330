import Contract

/// What a decoder has read and nobody was told of yet.
struct OutputBatch {
    var outputs: [UpstreamOutput] = []
    /// Chunks of the provider that carried output, fragments of tool calls included: the estimate of tokens.
    var chunks = 0

    var isEmpty: Bool { outputs.isEmpty && chunks == 0 }
}

/// Reads the body of a 2xx answer in one dialect. Throws the failure that the call ends with.
protocol StreamDecoder: AnyObject {
    /// The answer is whole: what follows, an error included, changes nothing.
    var isComplete: Bool { get }
    /// The end mark was seen: nothing more is expected on this connection.
    var sawEndMark: Bool { get }

    func receive(_ bytes: UnsafeRawBufferPointer, into batch: inout OutputBatch) throws(Failure)
    /// The body has ended as HTTP says. Whether the answer is whole is told by `isComplete` afterwards.
    func finish(into batch: inout OutputBatch) throws(Failure)
}

/// One provider's dialect.
protocol UpstreamAdapter: Sendable {
    /// - Throws: `unsupported_parameter` for what the upstream cannot do, `invalid_request` for what is not a request.
    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest
    /// - Parameter head: of a 2xx answer.
    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder
}

extension UpstreamConfiguration {
    var adapter: any UpstreamAdapter {
        switch kind {
        case .openai: OpenAIAdapter()
        case .dashscope: DashScopeAdapter()
        case .anthropic: AnthropicAdapter()
        case .ollama: OllamaAdapter()
        }
    }
}
