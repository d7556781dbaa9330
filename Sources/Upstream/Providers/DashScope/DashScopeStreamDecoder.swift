import Contract
import JSONCodec
import Support

/// One frame of a DashScope stream.
struct DashScopeChunk {
    /// The frame's message and finish reason, in OpenAI's format.
    var delta = OpenAIChunk.Delta()
    var finishReason: String?
    var hasOutput = false
    var promptTokens: Int?
    var completionTokens: Int?
    var code: String?
    var message: String?
    var requestID: String?

    /// - Throws: `JSONError` for invalid JSON and for a known member of the wrong type.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "output": if try !scanner.null() { try self.output(&scanner) }
            case "usage": if try !scanner.null() { try self.usage(&scanner) }
            case "code": self.code = try scanner.scalar()
            case "message": self.message = try scanner.scalar()
            case "request_id": self.requestID = try scanner.scalar()
            default: try scanner.skip()
            }
        }
        try scanner.finish()
    }

    /// Reads `output`. Choices after the first are ignored.
    private mutating func output(_ scanner: inout JSONScanner) throws(JSONError) {
        hasOutput = true
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "choices":
                guard try !scanner.null() else { return }
                var isFirst = true
                try scanner.array { (scanner) throws(JSONError) in
                    guard isFirst else { return try scanner.skip() }
                    isFirst = false
                    try scanner.object { (key, scanner) throws(JSONError) in
                        switch key {
                        case "message": if try !scanner.null() { try self.delta.read(&scanner) }
                        case "finish_reason": self.finishReason = try scanner.optionalString()
                        default: try scanner.skip()
                        }
                    }
                }
            default: try scanner.skip()
            }
        }
    }

    private mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "input_tokens": self.promptTokens = try scanner.figure()
            case "output_tokens": self.completionTokens = try scanner.figure()
            default: try scanner.skip()
            }
        }
    }
}

/// Decoder for DashScope's event stream. It has no end mark, `finish_reason` is the string "null" until the last frame, every frame carries
/// cumulative usage, and an error may arrive inside a 200 response with its status in a comment.
final class DashScopeStreamDecoder: StreamDecoder {
    private var parser = EventStreamParser()
    private var tools = ToolCallAssembler()
    private(set) var isComplete = false
    /// True with the finish reason, which is part of the last frame.
    var sawEndMark: Bool { isComplete }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !isComplete else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            if !isComplete { throw error }
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        guard !isComplete else { return }
        try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
        if !isComplete { try parser.requireEvents() }
    }

    /// Decodes one frame. Frames after the finish reason are ignored.
    private func read(_ event: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !event.data.isEmpty, !isComplete else { return }
        let chunk: DashScopeChunk
        do throws(JSONError) { chunk = try DashScopeChunk(scanning: event.data) } catch {
            throw Failure(.upstreamProtocol, "invalid frame in the upstream's stream: \(error)")
        }
        if event.name.equals("error") || !chunk.hasOutput && chunk.code != nil {
            var error = ProviderError(message: chunk.message ?? "", code: chunk.code)
            error.requestID = chunk.requestID
            throw error.failureInsideStream(kind: .dashscope, status: Self.status(in: event.comment))
        }
        try OpenAIStreamDecoder.apply(chunk.delta, tools: &tools, into: &batch)
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens)
        if let reason = chunk.finishReason, reason != "null", !reason.isEmpty, !isComplete {
            batch.finish(OpenAIStreamDecoder.finishReason(reason), try tools.finish())
            isComplete = true
        }
    }

    /// Parses the error status from a comment such as `HTTP_STATUS/429`.
    private static func status(in comment: Span<UInt8>) -> Int? {
        let mark: StaticString = "HTTP_STATUS/"
        guard comment.starts(with: mark) else { return nil }
        let status = String(decoding: comment.extracting(droppingFirst: mark.utf8CodeUnitCount))
        return Int(status).flatMap { (400...599).contains($0) ? $0 : nil }
    }
}
