import Contract
import JSONCodec

/// One event of an Anthropic stream. `kind` determines which properties are set.
struct AnthropicEvent {
    enum Kind { case messageStart, blockStart, blockDelta, blockStop, messageDelta, messageStop, error, other }

    var kind = Kind.other
    /// Index of the content block.
    var index = 0
    /// Text or reasoning.
    var delta = AnswerDelta()
    /// Part of a tool call's arguments.
    var partialJSON: TextPiece?
    /// The tool call that starts, with arguments that came at once.
    var tool: ToolCallAssembler.Fragment?
    /// The signature of a thinking block, or the whole of one that is redacted.
    var mark: ReasoningMark?
    var stopReason: String?
    var stopSequence: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var details = TokenDetails()
    var error: ProviderError?

    init() {}

    /// - Throws: `JSONError` for bytes that are neither a JSON object nor a list with an error.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        self = try repairingUTF8(bytes) { (bytes) throws(JSONError) in try AnthropicEvent(valid: bytes) }
    }

    private init(valid bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        if scanner.peek() == UInt8(ascii: "[") {
            error = try ProviderError(scanning: bytes)
            guard error == nil else { return }
        }
        var type: String?
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "type": type = try scanner.scalar()
            case "index": self.index = try scanner.figure() ?? 0
            case "delta": try self.readDelta(&scanner)
            case "content_block": try self.readBlock(&scanner)
            case "message":
                try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
                    switch key {
                    case "usage": try self.usage(&scanner)
                    default: try scanner.skip()
                    }
                }
            case "usage": try self.usage(&scanner)
            case "error": self.error = ProviderError(member: try scanner.value())
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        kind = Self.kind(type ?? "")
        // A gateway's error, in a form of its own.
        if type == nil, error == nil { error = try ProviderError(scanning: bytes) }
    }

    private static func kind(_ type: String) -> Kind {
        switch type {
        case "content_block_delta": .blockDelta
        case "content_block_start": .blockStart
        case "content_block_stop": .blockStop
        case "message_start": .messageStart
        case "message_delta": .messageDelta
        case "message_stop": .messageStop
        case "error": .error
        default: .other
        }
    }

    private mutating func readDelta(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "text": self.delta.content = try AnswerDelta.text(&scanner)
            case "thinking": self.delta.reasoning = try AnswerDelta.text(&scanner)
            case "partial_json":
                var fragment = ToolCallAssembler.Fragment()
                try fragment.readArguments(&scanner)
                self.partialJSON = fragment.arguments ?? fragment.whole.map { TextPiece($0) }
            case "signature": self.mark = try scanner.scalar().map { .signature($0) }
            case "stop_reason": self.stopReason = try scanner.scalar()
            case "stop_sequence": self.stopSequence = try scanner.scalar()
            default: try scanner.skip()
            }
        }
    }

    /// What a block of a document adds to the answer.
    var content: AnswerDelta {
        var content = delta
        if let tool { content.tools = [tool] }
        return content
    }

    /// Reads `content_block`, or a block of a document's `content`.
    mutating func readBlock(_ scanner: inout JSONScanner) throws(JSONError) {
        var type: String?
        var data: String?
        var fragment = ToolCallAssembler.Fragment()
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "type": type = try scanner.scalar()
            case "signature": self.mark = try scanner.scalar().map { .signature($0) }
            case "data": data = try scanner.scalar()
            case "id": fragment.id = try scanner.scalar()
            case "name": fragment.name = try scanner.scalar()
            case "text": self.delta.content = try AnswerDelta.text(&scanner)
            case "thinking": self.delta.reasoning = try AnswerDelta.text(&scanner)
            case "input":
                var input = ToolCallAssembler.Fragment()
                try input.readArguments(&scanner)
                // Deltas usually follow an empty input, and count if they follow a complete one.
                fragment.whole = (input.whole ?? input.arguments?.repaired).flatMap { $0.contains("\"") ? $0 : nil }
            default: try scanner.skip()
            }
        }
        if type == "tool_use" { tool = fragment }
        if type == "redacted_thinking" { mark = data.map { .redacted($0) } }
    }

    /// Reads `usage`. Tokens read from and written to the prompt cache count as prompt tokens.
    mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        var (input, written, read) = (Int?.none, Int?.none, Int?.none)
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "input_tokens": input = try scanner.figure()
            case "cache_creation_input_tokens": written = try scanner.figure()
            case "cache_read_input_tokens": read = try scanner.figure()
            case "output_tokens": self.completionTokens = try scanner.figure()
            default: try scanner.skip()
            }
        }
        if let read { details.cached = read }
        guard input != nil || written != nil || read != nil else { return }
        promptTokens = min((input ?? 0) + (written ?? 0) + (read ?? 0), JSONScanner.maximumFigure)
    }
}

/// Reader for Anthropic's event stream, from `message_start` to `message_stop`.
struct AnthropicStreamReader: AnswerEventReader {
    /// Block indexes of the tool calls, in order of appearance. Anthropic's index counts all blocks, ours only tool calls.
    private var toolBlocks: [Int] = []
    /// The block index of the current block if it is no call of a client's tool: tools that Anthropic runs send their arguments, too.
    private var otherBlock: Int?
    /// The signature of the open thinking block.
    private var signature: ReasoningMark?

    mutating func read(_ serverSent: ServerSentEvent, into answer: inout AnswerAssembler, _ batch: inout OutputBatch) throws(Failure) {
        let event: AnthropicEvent
        do throws(JSONError) { event = try AnthropicEvent(scanning: serverSent.data) } catch {
            throw Failure(.upstreamProtocol, "invalid event in the upstream's stream: \(error)")
        }
        if event.kind == .error || event.kind == .other && event.error != nil {
            throw (event.error ?? ProviderError(message: "")).failureInsideStream(kind: .anthropic)
        }
        if event.kind != .blockDelta, let mark = signature {
            answer.add(mark, into: &batch)
            signature = nil
        }
        switch event.kind {
        case .messageStop: answer.end()
        // Its output count is only the provider's initial value. Reported, it would pass for the total of an answer that is cut off.
        case .messageStart: batch.appendUsage(promptTokens: event.promptTokens, completionTokens: nil, details: event.details)
        case .messageDelta:
            batch.appendUsage(promptTokens: event.promptTokens, completionTokens: event.completionTokens, details: event.details)
            answer.finish(event.stopReason, stopSequence: event.stopSequence)
        case .blockStart, .blockDelta:
            try answer.add(content(event), into: &batch)
            switch event.mark {
            case .signature?: signature = event.mark
            case .redacted(let data)?: answer.add(.redacted(data), into: &batch)
            case nil: break
            }
        case .blockStop, .error, .other: break
        }
    }

    /// The content of a start or delta of a content block: text, reasoning or part of a tool call.
    private mutating func content(_ event: AnthropicEvent) -> AnswerDelta {
        var delta = AnswerDelta()
        if event.kind == .blockStart { otherBlock = event.tool == nil ? event.index : nil }
        if var tool = event.tool {
            tool.index = toolBlocks.count
            toolBlocks.append(event.index)
            delta.tools = [tool]
        } else if let json = event.partialJSON {
            guard event.index != otherBlock else { return delta }
            // A delta with an unknown index belongs to the last call.
            guard let index = toolBlocks.lastIndex(of: event.index) ?? toolBlocks.indices.last else { return delta }
            var fragment = ToolCallAssembler.Fragment(index: index)
            fragment.arguments = json
            delta.tools = [fragment]
        } else {
            delta = event.delta
        }
        return delta
    }
}
