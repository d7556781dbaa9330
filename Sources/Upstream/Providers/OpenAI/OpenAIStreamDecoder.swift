import Contract
import JSONCodec
import Support

/// Decoder for an OpenAI-compatible event stream: chunks until `[DONE]`.
final class OpenAIStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var answer = AnswerAssembler()
    private var template = ChunkTemplate()
    /// Whether data after the complete answer was invalid. The rest of the stream is then ignored.
    private var ignoresRest = false

    var isComplete: Bool { answer.isComplete }
    var isOver: Bool { answer.isOver }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !answer.sawEndMark, !ignoresRest else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            // Data after a complete answer does not change it.
            if !isComplete { throw error }
            ignoresRest = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        if !answer.sawEndMark, !ignoresRest {
            do throws(Failure) {
                try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
            } catch {
                if !answer.isOver { throw error }
            }
        }
        if !answer.isOver { try parser.requireEvents() }
        try answer.deliver(into: &batch)
    }

    /// Decodes one event.
    private func read(_ event: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !answer.sawEndMark, !event.data.isEmpty else { return }
        if event.data.equals("[DONE]") { return answer.end() }
        let chunk: OpenAIChunk
        do throws(JSONError) { chunk = try template.decode(event.data) } catch {
            if isComplete { return }
            throw Failure(.upstreamProtocol, "invalid chunk in the upstream's stream: \(error)")
        }
        if let error = chunk.error {
            if isComplete { return }
            throw error.failureInsideStream(kind: nil)
        }
        try answer.add(chunk.delta, into: &batch)
        answer.finish(chunk.finishReason)
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens, details: chunk.details)
    }
}
