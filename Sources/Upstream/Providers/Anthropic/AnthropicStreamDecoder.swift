import Contract
import JSONCodec

/// One event of an Anthropic stream. `kind` determines which properties are set.
struct AnthropicEvent {
    enum Kind { case messageStart, blockStart, blockDelta, messageDelta, messageStop, error, other }

    var kind = Kind.other
    /// Index of the content block.
    var index = 0
    var text: String?
    var thinking: String?
    var partialJSON: String?
    /// Whether the block that starts is a tool call.
    var blockIsTool = false
    /// Id and name of the tool call that starts.
    var id: String?
    var name: String?
    /// Complete arguments that came with the start of the block.
    var input: String?
    var stopReason: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var error: ProviderError?

    /// - Throws: `JSONError` for invalid JSON and for a known member of the wrong type.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
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

    /// Reads `content_block`.
    private mutating func block(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "type": self.blockIsTool = try scanner.string() == "tool_use"
            case "id": self.id = try scanner.optionalString()
            case "name": self.name = try scanner.optionalString()
            case "text": self.text = try scanner.optionalString()
            case "thinking": self.thinking = try scanner.optionalString()
            case "input":
                let raw = try scanner.raw()
                if raw.contains("\"") { self.input = raw }
            default: try scanner.skip()
            }
        }
    }

    /// Reads `usage`. Tokens read from and written to the prompt cache count as prompt tokens.
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

/// Decoder for Anthropic's event stream, from `message_start` to `message_stop`.
final class AnthropicStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var tools = ToolCallAssembler()
    /// Block indexes of the tool calls, in order of appearance. Anthropic's index counts all blocks, ours only tool calls.
    private var toolBlocks: [Int] = []
    private(set) var isComplete = false
    private(set) var sawEndMark = false
    /// Whether data after the complete answer was invalid. The rest of the stream is then ignored.
    private var ignoresRest = false

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !ignoresRest else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !isComplete { throw error }
            ignoresRest = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard !ignoresRest else { return }
        do throws(Failure) {
            try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !isComplete { throw error }
        }
        if !isComplete { try parser.requireEvents() }
    }

    /// Decodes one event. Events after the end mark are ignored.
    private func read(_ serverSent: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !serverSent.data.isEmpty, !sawEndMark else { return }
        let event: AnthropicEvent
        do throws(JSONError) { event = try AnthropicEvent(scanning: serverSent.data) } catch {
            throw Failure(.upstreamProtocol, "invalid event in the upstream's stream: \(error)")
        }
        switch event.kind {
        case .error: throw (event.error ?? ProviderError(message: "")).failureInsideStream(kind: .anthropic)
        case .messageStop: sawEndMark = true
        // Its output count is only the provider's initial value. Reported, it would pass for the total of an answer that is cut off.
        case .messageStart: if let tokens = event.promptTokens { batch.outputs.append(.usage(promptTokens: tokens, completionTokens: nil)) }
        case .messageDelta:
            batch.appendUsage(promptTokens: event.promptTokens, completionTokens: event.completionTokens)
            if let reason = event.stopReason, !isComplete {
                batch.finish(Self.finishReason(reason), try tools.finish())
                isComplete = true
            }
        case .blockStart, .blockDelta: try content(event, into: &batch)
        case .other: break
        }
    }

    /// Decodes a start or delta of a content block: text, reasoning or part of a tool call.
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

    /// Maps a stop reason. Unknown reasons count as a normal stop.
    private static func finishReason(_ reason: String) -> FinishReason {
        switch reason {
        case "max_tokens", "model_context_window_exceeded": .length
        case "tool_use": .toolCalls
        case "refusal": .contentFilter
        default: .stop
        }
    }
}
