import Contract
import JSONCodec
import Support

/// One line of an Ollama stream.
struct OllamaChunk {
    var content: String?
    var thinking: String?
    /// Complete tool calls: name and arguments.
    var calls: [ToolCallAssembler.Fragment] = []
    var isDone = false
    var doneReason: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var error: ProviderError?

    /// - Throws: `JSONError` for invalid JSON and for a known member of the wrong type.
    init(scanning bytes: Span<UInt8>) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "message": if try !scanner.null() { try self.message(&scanner) }
            case "done": self.isDone = try scanner.bool()
            case "done_reason": self.doneReason = try scanner.optionalString()
            case "prompt_eval_count": self.promptTokens = try scanner.figure()
            case "eval_count": self.completionTokens = try scanner.figure()
            case "error": if try !scanner.null() { self.error = ProviderError(try scanner.value()) }
            default: try scanner.skip()
            }
        }
        try scanner.finish()
    }

    private mutating func message(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "content": self.content = try scanner.optionalString()
            case "thinking": self.thinking = try scanner.optionalString()
            case "tool_calls":
                guard try !scanner.null() else { return }
                try scanner.array { (scanner) throws(JSONError) in
                    guard self.calls.count < ToolCallAssembler.maximumFragments else {
                        throw JSONError("more than \(ToolCallAssembler.maximumFragments) tool calls", at: scanner.offset)
                    }
                    try self.call(&scanner)
                }
            default: try scanner.skip()
            }
        }
    }

    private mutating func call(_ scanner: inout JSONScanner) throws(JSONError) {
        var fragment = ToolCallAssembler.Fragment()
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "id": fragment.id = try scanner.optionalString()
            case "function":
                try scanner.object { (key, scanner) throws(JSONError) in
                    switch key {
                    case "name": fragment.name = try scanner.optionalString()
                    case "arguments": fragment.arguments = try scanner.raw()
                    default: try scanner.skip()
                    }
                }
            default: try scanner.skip()
            }
        }
        calls.append(fragment)
    }
}

/// Decoder for Ollama's stream: one JSON object per line; the last has `done` set.
final class OllamaStreamDecoder: StreamDecoder {
    private var lines = LineParser()
    private var tools = ToolCallAssembler()
    private var toolCount = 0
    private(set) var isComplete = false
    var sawEndMark: Bool { isComplete }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !isComplete else { return }
        do throws(Failure) {
            try lines.feed(bytes) { (line) throws(Failure) in try self.read(line, into: &batch) }
        } catch {
            if !isComplete { throw error }
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        try lines.finish { (line) throws(Failure) in try self.read(line, into: &batch) }
    }

    /// Decodes one line. Blank lines and lines after the last object are ignored.
    private func read(_ line: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !isComplete, line.firstOffset(where: { $0 > 0x20 }) != nil else { return }
        let chunk: OllamaChunk
        do throws(JSONError) { chunk = try OllamaChunk(scanning: line) } catch {
            throw Failure(.upstreamProtocol, "invalid line in the upstream's stream: \(error)")
        }
        if let error = chunk.error { throw error.failureInsideStream(kind: .ollama) }
        var hasOutput = false
        if let thinking = chunk.thinking, !thinking.isEmpty {
            batch.outputs.append(.reasoning(thinking))
            hasOutput = true
        }
        if let content = chunk.content, !content.isEmpty {
            batch.outputs.append(.text(content))
            hasOutput = true
        }
        for var call in chunk.calls {
            call.index = toolCount
            toolCount += 1
            try tools.add(call)
            hasOutput = true
        }
        if hasOutput { batch.chunks += 1 }
        if chunk.isDone { try finish(chunk, into: &batch) }
    }

    /// Delivers usage, the collected tool calls and the finish reason.
    private func finish(_ chunk: OllamaChunk, into batch: inout OutputBatch) throws(Failure) {
        batch.appendUsage(promptTokens: chunk.promptTokens, completionTokens: chunk.completionTokens)
        let calls = try tools.finish()
        // Ollama reports "stop" for tool calls too.
        let reason: FinishReason = chunk.doneReason == "length" ? .length : calls.isEmpty ? .stop : .toolCalls
        batch.finish(reason, calls)
        isComplete = true
    }
}
