import Contract
import JSONCodec
import Support

/// One object of an Ollama stream.
struct OllamaChunk {
    /// The object's message. Its tool calls are complete.
    var delta = AnswerDelta()
    var isDone = false
    var doneReason: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var error: ProviderError?

    /// - Throws: `JSONError` for bytes that are neither a JSON object nor a list with an error.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        self = try repairingUTF8(bytes) { (bytes) throws(JSONError) in try OllamaChunk(valid: bytes) }
    }

    private init(valid bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        if scanner.peek() == UInt8(ascii: "[") {
            error = try ProviderError(scanning: bytes)
            guard error == nil else { return }
        }
        var isChunk = false
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "message":
                isChunk = isChunk || scanner.peek() == UInt8(ascii: "{")
                try self.delta.read(&scanner)
            case "done":
                isChunk = true
                self.isDone = try scanner.scalar() == "true"
            case "done_reason": self.doneReason = try scanner.scalar()
            case "prompt_eval_count": self.promptTokens = try scanner.figure()
            case "eval_count": self.completionTokens = try scanner.figure()
            case "error": self.error = ProviderError(member: try scanner.value())
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        // A gateway's error, in a form of its own.
        if !isChunk, error == nil { error = try ProviderError(scanning: bytes) }
    }
}

/// Decoder for Ollama's stream: JSON objects, usually one per line; the last has `done` set. Proxies send them over several lines, too.
final class OllamaStreamDecoder: StreamDecoder {
    private var values = JSONValueParser()
    private var answer = AnswerAssembler()
    private var toolCount = 0
    /// Whether data after the complete answer was invalid. The rest of the stream is then ignored.
    private var ignoresRest = false

    var isComplete: Bool { answer.isComplete }
    var isOver: Bool { answer.isOver }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !ignoresRest else { return }
        do throws(Failure) {
            try values.feed(bytes) { (value) throws(Failure) in try self.read(value, into: &batch) }
        } catch {
            if !isComplete { throw error }
            ignoresRest = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        if !ignoresRest {
            do throws(Failure) {
                try values.finish { (value) throws(Failure) in try self.read(value, into: &batch) }
            } catch {
                if !answer.isOver { throw error }
            }
        }
        try answer.deliver(into: &batch)
    }

    /// Decodes one object.
    private func read(_ value: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        var chunk: OllamaChunk
        do throws(JSONError) { chunk = try OllamaChunk(scanning: value) } catch {
            throw Failure(.upstreamProtocol, "invalid JSON in the upstream's stream: \(error)")
        }
        if let error = chunk.error { throw error.failureInsideStream(kind: .ollama) }
        chunk.delta.numberTools(from: toolCount)
        toolCount += chunk.delta.tools.count
        try answer.add(chunk.delta, into: &batch)
        guard chunk.isDone else { return }
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens)
        answer.finish("stop")
        answer.finish(chunk.doneReason)
    }
}
