import Contract

/// A 2xx answer whose type does not say what it is: an event stream after all, or one JSON document (the upstream ignored `stream`).
final class OpenAIAnswerSniffer: StreamDecoder {
    /// Bytes of a document that are read.
    static let documentLimit = 16 << 20

    private enum Kind {
        case unknown
        case stream(OpenAIStreamDecoder)
        case document([UInt8])
        case read
    }

    private var kind = Kind.unknown

    var isComplete: Bool {
        switch kind {
        case .stream(let decoder): decoder.isComplete
        case .read: true
        case .unknown, .document: false
        }
    }

    var sawEndMark: Bool { if case .stream(let decoder) = kind { decoder.sawEndMark } else { false } }

    func receive(_ bytes: UnsafeRawBufferPointer, into batch: inout OutputBatch) throws(Failure) {
        if case .unknown = kind {
            guard let first = bytes.first(where: { $0 != 0x20 && $0 != 0x0A && $0 != 0x0D && $0 != 0x09 }) else { return }
            switch first {
            case UInt8(ascii: "{"): kind = .document([])
            // A BOM, a comment, or the first letter of a field.
            case 0xEF, UInt8(ascii: ":"), UInt8(ascii: "d"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "r"):
                kind = .stream(OpenAIStreamDecoder())
            default: throw Failure(.upstreamProtocol, "the upstream's answer is neither an event stream nor JSON")
            }
        }
        switch kind {
        case .stream(let decoder): try decoder.receive(bytes, into: &batch)
        case .document(var document):
            guard document.count + bytes.count <= Self.documentLimit else {
                throw Failure(.upstreamProtocol, "the upstream's answer is a document of more than \(Self.documentLimit) bytes")
            }
            kind = .unknown
            document.append(contentsOf: bytes)
            kind = .document(document)
        case .unknown, .read: break
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        switch kind {
        case .stream(let decoder): try decoder.finish(into: &batch)
        case .document(let document):
            try OpenAIDocument.read(document, into: &batch)
            kind = .read
        case .unknown, .read: break
        }
    }
}

/// A whole `chat.completion`.
enum OpenAIDocument {
    static func read(_ bytes: [UInt8], into batch: inout OutputBatch) throws(Failure) {
        let json: JSON
        do throws(JSONError) { json = try JSON(parsing: bytes, rules: .lenient) } catch {
            throw Failure(.upstreamProtocol, "the upstream's answer cannot be read: \(error)")
        }
        guard let choice = json["choices"]?[0], let message = choice["message"] else {
            if let error = ProviderError(body: bytes) { throw error.failureInsideStream(kind: nil) }
            throw Failure(.upstreamProtocol, "the upstream's answer is JSON without choices")
        }
        if let text = message["reasoning_content"]?.string ?? message["reasoning"]?.string, !text.isEmpty {
            batch.outputs.append(.reasoning(text))
            batch.chunks += 1
        }
        if let text = message["content"]?.string ?? message["refusal"]?.string, !text.isEmpty {
            batch.outputs.append(.text(text))
            batch.chunks += 1
        }
        var tools = ToolCallAssembler()
        for (index, call) in (message["tool_calls"]?.array ?? []).enumerated() {
            try tools.add(
                ToolCallAssembler.Fragment(
                    index: index, id: call["id"]?.string, name: call["function"]?["name"]?.string,
                    arguments: call["function"]?["arguments"]?.string))
        }
        for call in try tools.finish() {
            batch.outputs.append(.toolCall(call))
            batch.chunks += 1
        }
        batch.outputs.append(.finished(OpenAIStreamDecoder.finishReason(choice["finish_reason"]?.string ?? "stop")))
        if let usage = json["usage"], usage.object != nil {
            batch.outputs.append(
                .usage(promptTokens: usage["prompt_tokens"]?.integer, completionTokens: usage["completion_tokens"]?.integer))
        }
    }
}
