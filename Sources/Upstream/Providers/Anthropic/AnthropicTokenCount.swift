import Contract
import CurlTransport
import JSONCodec
import Support

/// Adapter for Anthropic's count of a prompt's tokens (docs.anthropic.com, "Count tokens in a Message"). Its answer is the count in decimal.
struct AnthropicTokenCount: UpstreamAdapter {
    /// The members of a message's body that the count takes.
    private static let members = ["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"]

    func request(_ request: GenerationRequest, on upstream: UpstreamConfiguration) throws(Failure) -> HTTPRequest {
        let message = try AnthropicAdapter.body(request, on: upstream)
        var body = JSONObject()
        for name in Self.members { body[name] = message[name] }
        return try AnthropicAdapter.request("/v1/messages/count_tokens", body, of: request, on: upstream)
    }

    func decoder(for head: HTTPResponseHead) throws(Failure) -> any StreamDecoder { TokenCountDecoder() }
}

/// Decoder for the document `{"input_tokens": …}`.
private final class TokenCountDecoder: StreamDecoder {
    /// Bytes.
    private static let maximumSize = 64 << 10

    private var body: [UInt8] = []
    private(set) var isComplete = false
    var isOver: Bool { isComplete }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard body.count + bytes.count <= Self.maximumSize else {
            throw Failure(.upstreamProtocol, "the upstream's count of tokens has more than \(Self.maximumSize) bytes")
        }
        body.append(copying: bytes)
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard let document = try? JSON(upstream: body), let count = document["input_tokens"]?.integer, count >= 0 else {
            throw Failure(.upstreamProtocol, "the upstream's response is not a count of tokens")
        }
        isComplete = true
        batch.outputs.append(.text(String(count)))
        batch.chunks += 1
        // Nothing was generated or billed.
        batch.appendUsage(promptTokens: 0, completionTokens: 0)
        batch.outputs.append(.finished(.stop))
    }
}
