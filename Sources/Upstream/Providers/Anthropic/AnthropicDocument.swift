import Contract
import JSONCodec

/// Decoder for a complete Anthropic `message`.
struct AnthropicDocument {
    private var blocks: [AnthropicEvent] = []
    private var stopReason: String?
    private var stopSequence: String?
    private var hasContent = false
    private var error: ProviderError?
    /// Holds the token counts.
    private var counts = AnthropicEvent()

    /// Decodes the message and appends its content, stop reason and usage.
    /// - Throws: `upstream_protocol` for a document without content, or the failure that the document reports.
    static func read(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        let document: AnthropicDocument
        do throws(JSONError) {
            document = try repairingUTF8(bytes) { (bytes) throws(JSONError) in try AnthropicDocument(valid: bytes) }
        } catch {
            throw Failure(.upstreamProtocol, "invalid JSON in the upstream's response: \(error)")
        }
        if let error = document.error { throw error.failureInsideStream(kind: .anthropic) }
        guard document.hasContent else { throw Failure(.upstreamProtocol, "the upstream's response is JSON without content") }
        let counts = document.counts
        try AnswerAssembler.deliver(
            document.blocks.map { ($0.content, $0.mark) }, finishReason: document.stopReason, stopSequence: document.stopSequence,
            promptTokens: counts.promptTokens, completionTokens: counts.completionTokens, details: counts.details, into: &batch)
    }

    private init(valid bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        if scanner.peek() == UInt8(ascii: "[") {
            error = try ProviderError(scanning: bytes)
            guard error == nil else { return }
        }
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "content": try self.readContent(&scanner)
            case "stop_reason": self.stopReason = try scanner.scalar()
            case "stop_sequence": self.stopSequence = try scanner.scalar()
            case "usage": try self.counts.usage(&scanner)
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        if !hasContent { error = try ProviderError(scanning: bytes) }
    }

    /// Reads `content`: a list of blocks, or bare text.
    private mutating func readContent(_ scanner: inout JSONScanner) throws(JSONError) {
        blocks = []
        var tools = 0
        switch scanner.peek() {
        case UInt8(ascii: "["):
            hasContent = true
            try scanner.array { (scanner) throws(JSONError) in
                guard tools < ToolCallAssembler.maximumFragments else {
                    throw JSONError("more than \(ToolCallAssembler.maximumFragments) tool calls", at: scanner.offset)
                }
                var block = AnthropicEvent()
                try block.readBlock(&scanner)
                if block.tool != nil { tools += 1 }
                self.blocks.append(block)
            }
        case UInt8(ascii: "\""):
            hasContent = true
            var block = AnthropicEvent()
            block.delta.content = try scanner.textPiece()
            blocks = [block]
        default: try scanner.skip()
        }
    }
}
