import Contract
import JSONCodec

/// Decoder for a complete `chat.completion` document.
enum OpenAIDocument {
    /// Decodes the document and appends its content, finish reason and usage.
    /// - Throws: `upstream_protocol` for a document without choices, or the failure that the document reports.
    static func read(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        let document: OpenAIChunk
        do throws(JSONError) { document = try OpenAIChunk(scanning: bytes, isDocument: true) } catch {
            throw Failure(.upstreamProtocol, "invalid JSON in the upstream's response: \(error)")
        }
        if let error = document.error { throw error.failureInsideStream(kind: nil) }
        guard document.hasChoice else { throw Failure(.upstreamProtocol, "the upstream's response is JSON without choices") }
        try AnswerAssembler.deliver(
            [(document.delta, nil)], finishReason: document.finishReason, stopSequence: document.stopSequence,
            promptTokens: document.promptTokens, completionTokens: document.completionTokens, details: document.details, into: &batch)
    }
}
