import Contract
import JSONCodec

/// One event of an Anthropic stream; its `type` says which of the fields count.
struct AnthropicEvent {
    enum Kind { case messageStart, blockStart, blockDelta, messageDelta, messageStop, error, other }

    var kind = Kind.other
    var index = 0
    var text: String?
    var thinking: String?
    var partialJSON: String?
    /// Of a block that begins.
    var blockIsTool = false
    var id: String?
    var name: String?
    /// Arguments that came whole with the block's beginning.
    var input: String?
    var stopReason: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var error: ProviderError?

    init(scanning bytes: UnsafeRawBufferPointer) throws(JSONError) {
        var scanner = JSONScanner(bytes.assumingMemoryBound(to: UInt8.self))
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "type": self.kind = Self.kind(try scanner.string())
            case "index": self.index = try scanner.figure() ?? 0
            case "delta": if try !scanner.null() { try self.delta(&scanner) }
            case "content_block": if try !scanner.null() { try self.block(&scanner) }
            case "message":
                guard scanner.peek() == UInt8(ascii: "{") else { return try scanner.skip() }
                try scanner.object { (key, scanner) throws(JSONError) in
                    switch key {
                    case "usage": try self.usage(&scanner)
                    default: try scanner.skip()
                    }
                }
            case "usage": try self.usage(&scanner)
            case "error": if try !scanner.null() { self.error = ProviderError(try scanner.value()) }
            default: try scanner.skip()
            }
        }
        try scanner.finish()
    }

    private static func kind(_ type: String) -> Kind {
        switch type {
        case "content_block_delta": .blockDelta
        case "content_block_start": .blockStart
        case "message_start": .messageStart
        case "message_delta": .messageDelta
        case "message_stop": .messageStop
        case "error": .error
        default: .other
        }
    }

    private mutating func delta(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "text": self.text = try scanner.optionalString()
            case "thinking": self.thinking = try scanner.optionalString()
            case "partial_json": self.partialJSON = try scanner.optionalString()
            case "stop_reason": self.stopReason = try scanner.optionalString()
            default: try scanner.skip()
            }
        }
    }

    private mutating func block(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "type": self.blockIsTool = try scanner.string() == "tool_use"
            case "id": self.id = try scanner.optionalString()
            case "name": self.name = try scanner.optionalString()
            case "text": self.text = try scanner.optionalString()
            case "thinking": self.thinking = try scanner.optionalString()
            case "input":
                let raw = String(decoding: try scanner.raw(), as: UTF8.self)
                if raw.contains("\"") { self.input = raw }
            default: try scanner.skip()
            }
        }
    }

    /// What was read from a cache and written to it was sent as prompt all the same.
    private mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        guard try !scanner.null() else { return }
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens":
                if let tokens = try scanner.figure() {
                    self.promptTokens = min((self.promptTokens ?? 0) + tokens, JSONScanner.maximumFigure)
                }
            case "output_tokens": self.completionTokens = try scanner.figure()
            default: try scanner.skip()
            }
        }
    }
}

/// Anthropic's event stream, from `message_start` to `message_stop`.
final class AnthropicStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var tools = ToolCallAssembler()
    /// Places of the blocks that are tool calls, in the order in which they began: the events number all blocks, ours only calls.
    private var toolBlocks: [Int] = []
    private(set) var isComplete = false
    private(set) var sawEndMark = false
    /// What followed the whole answer could not be read: the rest is not looked at.
    private var isSpoilt = false

    func receive(_ bytes: UnsafeRawBufferPointer, into batch: inout OutputBatch) throws(Failure) {
        guard !isSpoilt else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !isComplete { throw error }
            isSpoilt = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard !isSpoilt else { return }
        do throws(Failure) {
            try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !isComplete { throw error }
        }
        if !isComplete, parser.eventCount == 0, parser.foreignLines > 0 {
            throw Failure(.upstreamProtocol, "the upstream's answer is no event stream")
        }
    }

    private func read(_ serverSent: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !serverSent.data.isEmpty, !sawEndMark else { return }
        let event: AnthropicEvent
        do throws(JSONError) { event = try AnthropicEvent(scanning: serverSent.data) } catch {
            throw Failure(.upstreamProtocol, "an event of the upstream's stream cannot be read: \(error)")
        }
        switch event.kind {
        case .error: throw (event.error ?? ProviderError(message: "")).failureInsideStream(kind: .anthropic)
        case .messageStop: sawEndMark = true
        // Its count of output is where the provider's counter starts: told on, it would pass for the whole of an answer that is cut short.
        case .messageStart: if let tokens = event.promptTokens { batch.outputs.append(.usage(promptTokens: tokens, completionTokens: nil)) }
        case .messageDelta:
            tellUsage(event, into: &batch)
            if let reason = event.stopReason, !isComplete {
                for call in try tools.finish() { batch.outputs.append(.toolCall(call)) }
                batch.outputs.append(.finished(Self.finishReason(reason)))
                isComplete = true
            }
        case .blockStart, .blockDelta: try content(event, into: &batch)
        case .other: break
        }
    }

    private func content(_ event: AnthropicEvent, into batch: inout OutputBatch) throws(Failure) {
        if event.kind == .blockStart, event.blockIsTool {
            try tools.add(.init(index: toolBlocks.count, id: event.id, name: event.name, arguments: event.input))
            toolBlocks.append(event.index)
            batch.chunks += 1
        } else if let json = event.partialJSON, let index = toolBlocks.lastIndex(of: event.index) {
            try tools.add(.init(index: index, arguments: json))
            batch.chunks += 1
        } else if let text = event.text, !text.isEmpty {
            batch.outputs.append(.text(text))
            batch.chunks += 1
        } else if let thinking = event.thinking, !thinking.isEmpty {
            batch.outputs.append(.reasoning(thinking))
            batch.chunks += 1
        }
    }

    private func tellUsage(_ event: AnthropicEvent, into batch: inout OutputBatch) {
        guard event.promptTokens != nil || event.completionTokens != nil else { return }
        batch.outputs.append(.usage(promptTokens: event.promptTokens, completionTokens: event.completionTokens))
    }

    private static func finishReason(_ reason: String) -> FinishReason {
        switch reason {
        case "max_tokens", "model_context_window_exceeded": .length
        case "tool_use": .toolCalls
        case "refusal": .contentFilter
        default: .stop
        }
    }
}
