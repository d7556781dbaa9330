import Contract
import JSONCodec
import Support

/// Decoder for an OpenAI-compatible event stream: chunks until `[DONE]`.
///
/// A stream is complete if it had a finish reason, or output and `[DONE]`: some servers omit one of them. Tool calls are delivered together
/// at the finish.
final class OpenAIStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var tools = ToolCallAssembler()
    private var hasFinished = false
    private var sawChunk = false
    private(set) var sawEndMark = false
    /// Whether data after the complete answer was invalid. The rest of the stream is then ignored.
    private var ignoresRest = false

    var isComplete: Bool { hasFinished }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !ignoresRest else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            // Data after a complete answer does not change it.
            if !hasFinished { throw error }
            ignoresRest = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !ignoresRest else { return }
        do throws(Failure) {
            try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !hasFinished { throw error }
        }
        if !hasFinished { try parser.requireEvents() }
    }

    /// Decodes one event. `[DONE]` after output completes a stream that had no finish reason.
    private func read(_ event: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !sawEndMark, !event.data.isEmpty else { return }
        if event.data.equals("[DONE]") {
            sawEndMark = true
            if sawChunk, !hasFinished { try finish(tools.isEmpty ? .stop : .toolCalls, into: &batch) }
            return
        }
        let chunk: OpenAIChunk
        do throws(JSONError) { chunk = try OpenAIChunk(scanning: event.data) } catch {
            if hasFinished { return }
            throw Failure(.upstreamProtocol, "invalid chunk in the upstream's stream: \(error)")
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

    /// Delivers the collected tool calls and the finish reason.
    private func finish(_ reason: FinishReason, into batch: inout OutputBatch) throws(Failure) {
        batch.finish(reason, try tools.finish())
        hasFinished = true
    }

    /// Adds the content of a delta to the batch, and its fragments to the tool calls.
    /// - Throws: `upstream_protocol` or `output_too_large` if the tool calls exceed a limit.
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

    /// Maps a finish reason. Unknown reasons count as a normal stop.
    static func finishReason(_ text: String) -> FinishReason {
        switch text {
        case "length", "max_tokens": .length
        case "tool_calls", "function_call": .toolCalls
        case "content_filter", "sensitive": .contentFilter
        default: .stop
        }
    }
}
