import Contract
import JSONCodec
import Support

/// Reader for an OpenAI-compatible event stream: chunks until `[DONE]`.
struct OpenAIStreamReader: AnswerEventReader {
    private var template = ChunkTemplate()

    init() {}

    mutating func read(_ event: ServerSentEvent, into answer: inout AnswerAssembler, _ batch: inout OutputBatch) throws(Failure) {
        if event.data.equals("[DONE]") { return answer.end() }
        let chunk: OpenAIChunk
        do throws(JSONError) { chunk = try template.decode(event.data) } catch {
            if answer.isComplete { return }
            throw Failure(.upstreamProtocol, "invalid chunk in the upstream's stream: \(error)")
        }
        if let error = chunk.error {
            if answer.isComplete { return }
            throw error.failureInsideStream(kind: nil)
        }
        try answer.add(chunk.delta, into: &batch)
        answer.finish(chunk.finishReason, stopSequence: chunk.stopSequence)
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens, details: chunk.details)
    }
}
