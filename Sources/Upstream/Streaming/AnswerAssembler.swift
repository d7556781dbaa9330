import Contract
import JSONCodec

/// Collects the answer of one response, for the decoders of all dialects.
///
/// Text is passed on at once; tool calls and the finish reason follow at the end. A finish reason does not end the answer: some servers send
/// "stop" too early, and then text, tool calls or another reason, which counts.
struct AnswerAssembler {
    private var tools = ToolCallAssembler()
    private var content = TextJoiner()
    private var reasoning = TextJoiner()
    /// The last finish reason; nil before the first one.
    private var ending: FinishReasons.Meaning?
    private var stopSequence: String?
    private var hasOutput = false
    private var hasDelivered = false
    /// Whether the end mark was received. No more data is expected.
    private(set) var sawEndMark = false

    /// Whether the answer is complete: it had a finish reason, or output and the end mark. Some servers omit one of them.
    var isComplete: Bool {
        switch ending {
        case .finished?: true
        case .failed?: false
        case nil: sawEndMark && hasOutput
        }
    }

    /// Whether the upstream said that the answer is over.
    var isOver: Bool { ending != nil || sawEndMark }

    /// Maximum bytes of a stop sequence. A longer one is not reported.
    private static let stopSequenceMaximum = 1_024

    /// Delivers a complete document: content, usage, tool calls and finish reason, which is `stop` if it is missing.
    /// - Parameter parts: the content in order, each with the mark that ends it.
    /// - Throws: as `add` and `deliver(into:)`.
    static func deliver(
        _ parts: [(content: AnswerDelta, mark: ReasoningMark?)], finishReason: String?, stopSequence: String?, promptTokens: Int?,
        completionTokens: Int?, details: TokenDetails, into batch: inout OutputBatch
    ) throws(Failure) {
        var (answer, toolCount) = (AnswerAssembler(), 0)
        for var part in parts {
            part.content.numberTools(from: toolCount)
            toolCount += part.content.tools.count
            try answer.add(part.content, into: &batch)
            if let mark = part.mark { answer.add(mark, into: &batch) }
        }
        answer.finish("stop")
        answer.finish(finishReason, stopSequence: stopSequence)
        batch.appendUsage(promptTokens: promptTokens, completionTokens: completionTokens, details: details)
        try answer.deliver(into: &batch)
    }

    /// Adds a chunk's content.
    /// - Throws: `upstream_protocol` or `output_too_large` if the tool calls exceed a limit.
    mutating func add(_ delta: AnswerDelta, into batch: inout OutputBatch) throws(Failure) {
        guard !delta.content.isEmpty || !delta.reasoning.isEmpty || !delta.tools.isEmpty else { return }
        let thought = reasoning.text(delta.reasoning)
        if !thought.isEmpty { batch.outputs.append(.reasoning(thought)) }
        let text = content.text(delta.content)
        if !text.isEmpty { batch.outputs.append(.text(text)) }
        for (offset, fragment) in delta.tools.enumerated() { try tools.add(fragment, followsInChunk: offset > 0) }
        hasOutput = true
        batch.chunks += 1
    }

    /// Adds what ends a block of reasoning.
    mutating func add(_ mark: ReasoningMark, into batch: inout OutputBatch) {
        guard !mark.text.isEmpty else { return }
        let thought = reasoning.rest()
        if !thought.isEmpty { batch.outputs.append(.reasoning(thought)) }
        batch.outputs.append(.reasoningMark(mark))
        batch.chunks += 1
    }

    /// Takes a finish reason; nil, empty text and "null" are none.
    /// - Parameter stopSequence: the stop sequence that ended the answer; nil if the upstream does not report it.
    mutating func finish(_ reason: String?, stopSequence: String? = nil) {
        if let stopSequence, !stopSequence.isEmpty, stopSequence.utf8.count <= Self.stopSequenceMaximum { self.stopSequence = stopSequence }
        guard let reason, !reason.isEmpty, reason != "null" else { return }
        ending = FinishReasons.meaning(of: reason)
    }

    /// Takes the end mark.
    mutating func end() { sawEndMark = true }

    /// Delivers the tool calls and the finish reason of a complete answer; does nothing for an incomplete one. Called at the end.
    /// - Throws: the failure that the finish reason means, `upstream_protocol` for an invalid tool call.
    mutating func deliver(into batch: inout OutputBatch) throws(Failure) {
        guard !hasDelivered else { return }
        hasDelivered = true
        let thought = reasoning.rest()
        if !thought.isEmpty { batch.outputs.append(.reasoning(thought)) }
        let text = content.rest()
        if !text.isEmpty { batch.outputs.append(.text(text)) }
        if case .failed(let failure)? = ending { throw failure }
        guard isComplete else { return }
        var reason = FinishReason.stop
        if case .finished(let given)? = ending { reason = given }
        do throws(Failure) {
            let calls = try tools.finish(isCut: reason == .length || reason == .contentFilter)
            // Some servers say "stop" although there are tool calls.
            if reason == .stop, !calls.isEmpty { reason = .toolCalls }
            for call in calls { batch.outputs.append(.toolCall(call)) }
            batch.outputs.append(.finished(reason, stopSequence: reason == .stop ? stopSequence : nil))
        } catch {
            ending = .failed(error)
            throw error
        }
    }
}
