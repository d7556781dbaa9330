import Contract
import JSONCodec

/// An OpenAI-compatible event stream: chunks until `[DONE]`.
///
/// A stream is whole when it had a finish reason, or output and `[DONE]`: servers leave out the one or the other. Tool calls are told when
/// all of them are complete, at the finish.
final class OpenAIStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var tools = ToolCallAssembler()
    private var hasFinished = false
    private var sawChunk = false
    private(set) var sawEndMark = false
    /// What followed the whole answer could not be read: the rest is not looked at.
    private var isSpoilt = false

    var isComplete: Bool { hasFinished }

    func receive(_ bytes: UnsafeRawBufferPointer, into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !isSpoilt else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            // Whatever comes behind a whole answer does not change it.
            if !hasFinished { throw error }
            isSpoilt = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !isSpoilt else { return }
        do throws(Failure) {
            try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !hasFinished { throw error }
        }
        if !hasFinished, parser.eventCount == 0, parser.foreignLines > 0 {
            throw Failure(.upstreamProtocol, "the upstream's answer is no event stream")
        }
    }

    private func read(_ event: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !event.data.isEmpty else { return }
        if event.data.elementsEqual("[DONE]".utf8) {
            sawEndMark = true
            if sawChunk, !hasFinished { try finish(tools.isEmpty ? .stop : .toolCalls, into: &batch) }
            return
        }
        let chunk: OpenAIChunk
        do throws(JSONError) { chunk = try OpenAIChunk(scanning: event.data) } catch {
            if hasFinished { return }
            throw Failure(.upstreamProtocol, "a chunk of the upstream's stream cannot be read: \(error)")
        }
        try apply(chunk, into: &batch)
    }

    private func apply(_ chunk: OpenAIChunk, into batch: inout OutputBatch) throws(Failure) {
        if let error = chunk.error {
            if hasFinished { return }
            throw error.failureInsideStream(kind: nil)
        }
        try Self.apply(chunk.delta, tools: &tools, into: &batch)
        if chunk.isChunk { sawChunk = true }
        if let reason = chunk.finishReason, !reason.isEmpty, !hasFinished { try finish(Self.finishReason(reason), into: &batch) }
        if chunk.hasUsage { batch.outputs.append(.usage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens)) }
    }

    private func finish(_ reason: FinishReason, into batch: inout OutputBatch) throws(Failure) {
        for call in try tools.finish() { batch.outputs.append(.toolCall(call)) }
        batch.outputs.append(.finished(reason))
        hasFinished = true
    }

    static func apply(_ delta: OpenAIChunk.Delta, tools: inout ToolCallAssembler, into batch: inout OutputBatch) throws(Failure) {
        var hasOutput = false
        if let reasoning = delta.reasoning {
            batch.outputs.append(.reasoning(reasoning))
            hasOutput = true
        }
        if let content = delta.content {
            batch.outputs.append(.text(content))
            hasOutput = true
        }
        for fragment in delta.tools {
            try tools.add(fragment)
            hasOutput = true
        }
        if hasOutput { batch.chunks += 1 }
    }

    /// A reason that is not known is an end all the same.
    static func finishReason(_ text: String) -> FinishReason {
        switch text {
        case "length", "max_tokens": .length
        case "tool_calls", "function_call": .toolCalls
        case "content_filter", "sensitive": .contentFilter
        default: .stop
        }
    }
}
