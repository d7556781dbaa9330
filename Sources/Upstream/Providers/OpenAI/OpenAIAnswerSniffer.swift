import Contract
import JSONCodec

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

    func receive(_ received: UnsafeRawBufferPointer, into batch: inout OutputBatch) throws(Failure) {
        var bytes = received
        if case .unknown = kind {
            // White space before the answer is left out, in whatever slices it comes.
            guard let start = bytes.firstIndex(where: { $0 != 0x20 && $0 != 0x0A && $0 != 0x0D && $0 != 0x09 }) else { return }
            bytes = UnsafeRawBufferPointer(rebasing: bytes[start...])
            switch bytes[0] {
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
        let result: Result<OpenAIChunk, JSONError> = bytes.withUnsafeBytes { bytes in
            do throws(JSONError) { return .success(try OpenAIChunk(scanning: bytes, isDocument: true)) } catch { return .failure(error) }
        }
        let document: OpenAIChunk
        do throws(JSONError) { document = try result.get() } catch {
            throw Failure(.upstreamProtocol, "the upstream's answer cannot be read: \(error)")
        }
        if let error = document.error { throw error.failureInsideStream(kind: nil) }
        guard document.hasChoice else { throw Failure(.upstreamProtocol, "the upstream's answer is JSON without choices") }
        if let reasoning = document.delta.reasoning {
            batch.outputs.append(.reasoning(reasoning))
            batch.chunks += 1
        }
        if let content = document.delta.content {
            batch.outputs.append(.text(content))
            batch.chunks += 1
        }
        var tools = ToolCallAssembler()
        for (index, call) in document.delta.tools.enumerated() {
            var call = call
            call.index = index
            try tools.add(call)
        }
        for call in try tools.finish() {
            batch.outputs.append(.toolCall(call))
            batch.chunks += 1
        }
        batch.outputs.append(.finished(OpenAIStreamDecoder.finishReason(document.finishReason ?? "stop")))
        if document.hasUsage {
            batch.outputs.append(.usage(promptTokens: document.promptTokens, completionTokens: document.completionTokens))
        }
    }
}
