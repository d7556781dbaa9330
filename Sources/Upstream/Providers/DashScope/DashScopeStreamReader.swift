import Contract
import JSONCodec
import Support

/// One frame of a DashScope stream.
struct DashScopeChunk {
    /// The frame's message and finish reason, in OpenAI's format.
    var delta = AnswerDelta()
    var finishReason: String?
    var hasOutput = false
    var promptTokens: Int?
    var completionTokens: Int?
    var details = TokenDetails()
    /// The error of a frame without output.
    var error: ProviderError?

    /// - Throws: `JSONError` for bytes that are neither a JSON object nor a list with an error.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        self = try repairingUTF8(bytes) { (bytes) throws(JSONError) in try DashScopeChunk(valid: bytes) }
    }

    private init(valid bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        if scanner.peek() == UInt8(ascii: "[") {
            error = try ProviderError(scanning: bytes)
            guard error == nil else { return }
        }
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "output": try self.output(&scanner)
            case "usage": try self.usage(&scanner)
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        if !hasOutput { error = try ProviderError(scanning: bytes) }
    }

    /// Reads `output`. Choices after the first are ignored. Servers that ignore `result_format` send `text` and `finish_reason` instead.
    private mutating func output(_ scanner: inout JSONScanner) throws(JSONError) {
        hasOutput = scanner.peek() == UInt8(ascii: "{")
        var text = TextPiece()
        var reason: String?
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "choices":
                var isFirst = true
                try scanner.arrayIfPresent { (scanner) throws(JSONError) in
                    guard isFirst else { return try scanner.skip() }
                    isFirst = false
                    try scanner.object { (key, scanner) throws(JSONError) in
                        switch key {
                        case "message": try self.delta.read(&scanner)
                        case "finish_reason": self.finishReason = try scanner.scalar()
                        default: try scanner.skip()
                        }
                    }
                }
            case "text": text = try AnswerDelta.text(&scanner)
            case "finish_reason": reason = try scanner.scalar()
            default: try scanner.skip()
            }
        }
        if delta.content.isEmpty { delta.content = text }
        finishReason = finishReason ?? reason
    }

    private mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "input_tokens": self.promptTokens = try scanner.figure()
            case "output_tokens": self.completionTokens = try scanner.figure()
            case "prompt_tokens_details", "input_tokens_details", "output_tokens_details": try self.details.read(&scanner)
            default: try scanner.skip()
            }
        }
    }
}

/// Reader for DashScope's event stream. It has no end mark, `finish_reason` is the string "null" until the last frame, every frame carries
/// cumulative usage, and an error may arrive inside a 200 response with its status in a comment.
struct DashScopeStreamReader: AnswerEventReader {
    func read(_ event: ServerSentEvent, into answer: inout AnswerAssembler, _ batch: inout OutputBatch) throws(Failure) {
        let chunk: DashScopeChunk
        do throws(JSONError) { chunk = try DashScopeChunk(scanning: event.data) } catch {
            throw Failure(.upstreamProtocol, "invalid frame in the upstream's stream: \(error)")
        }
        if event.name.equals("error") || chunk.error != nil {
            let error = chunk.error ?? ProviderError(message: "")
            throw error.failureInsideStream(kind: .dashscope, status: Self.status(in: event.comment))
        }
        try answer.add(chunk.delta, into: &batch)
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens, details: chunk.details)
        answer.finish(chunk.finishReason)
    }

    /// Parses the error status from a comment such as `HTTP_STATUS/429`.
    private static func status(in comment: Span<UInt8>) -> Int? {
        let mark: StaticString = "HTTP_STATUS/"
        guard comment.starts(with: mark) else { return nil }
        let status = String(decoding: comment.extracting(droppingFirst: mark.utf8CodeUnitCount))
        return Int(status).flatMap { (400...599).contains($0) ? $0 : nil }
    }
}

/// Decoder for a complete DashScope answer: a frame with the whole message.
enum DashScopeDocument {
    /// Decodes the document and appends its content, finish reason and usage.
    /// - Throws: `upstream_protocol` for a document without output, or the failure that the document reports.
    static func read(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        let document: DashScopeChunk
        do throws(JSONError) { document = try DashScopeChunk(scanning: bytes) } catch {
            throw Failure(.upstreamProtocol, "invalid JSON in the upstream's response: \(error)")
        }
        if let error = document.error { throw error.failureInsideStream(kind: .dashscope) }
        guard document.hasOutput else { throw Failure(.upstreamProtocol, "the upstream's response is JSON without output") }
        try AnswerAssembler.deliver(
            [(document.delta, nil)], finishReason: document.finishReason, stopSequence: nil, promptTokens: document.promptTokens,
            completionTokens: document.completionTokens, details: document.details, into: &batch)
    }
}
