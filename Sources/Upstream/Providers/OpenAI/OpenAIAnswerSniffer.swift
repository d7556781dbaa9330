import Contract
import JSONCodec
import Support

/// Decoder for a 2xx response whose content type is inconclusive. It is an event stream, or one JSON document if the upstream ignored
/// `stream`. The first byte decides.
final class OpenAIAnswerSniffer: StreamDecoder {
    /// Maximum size of a document in bytes.
    static let documentLimit = 16 << 20

    /// `unknown` becomes `stream` or `document`; `document` becomes `read` when the body has ended.
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

    var isOver: Bool { if case .stream(let decoder) = kind { decoder.isOver } else { false } }

    func receive(_ received: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        var bytes = received
        if case .unknown = kind {
            // White space before the content is skipped, however the bytes are split.
            guard let start = bytes.firstOffset(where: { $0 != 0x20 && $0 != 0x0A && $0 != 0x0D && $0 != 0x09 }) else { return }
            bytes = bytes.extracting(droppingFirst: start)
            switch bytes[0] {
            // Some servers send an error in a list.
            case UInt8(ascii: "{"), UInt8(ascii: "["): kind = .document([])
            // A byte order mark, a comment, or the first letter of a field name.
            case 0xEF, UInt8(ascii: ":"), UInt8(ascii: "d"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "r"):
                kind = .stream(OpenAIStreamDecoder())
            default: throw Failure(.upstreamProtocol, "the upstream's response is neither an event stream nor JSON")
            }
        }
        switch kind {
        case .stream(let decoder): try decoder.receive(bytes, into: &batch)
        case .document(var document):
            guard document.count + bytes.count <= Self.documentLimit else {
                throw Failure(.upstreamProtocol, "the upstream's response is a document of more than \(Self.documentLimit) bytes")
            }
            // Release the enum's reference first, so appending does not copy the array.
            kind = .unknown
            document.append(copying: bytes)
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

/// Decodes a complete `chat.completion` document.
enum OpenAIDocument {
    /// Decodes the document and appends its content, finish reason and usage.
    /// - Throws: `upstream_protocol` for a document without choices, or the failure that the document reports.
    static func read(_ bytes: [UInt8], into batch: inout OutputBatch) throws(Failure) {
        var document: OpenAIChunk
        do throws(JSONError) { document = try OpenAIChunk(scanning: bytes.span, isDocument: true) } catch {
            throw Failure(.upstreamProtocol, "invalid JSON in the upstream's response: \(error)")
        }
        if let error = document.error { throw error.failureInsideStream(kind: nil) }
        guard document.hasChoice else { throw Failure(.upstreamProtocol, "the upstream's response is JSON without choices") }
        document.delta.numberTools(from: 0)
        var answer = AnswerAssembler()
        try answer.add(document.delta, into: &batch)
        answer.finish("stop")
        answer.finish(document.finishReason)
        batch.appendUsage(promptTokens: document.promptTokens, completionTokens: document.completionTokens)
        try answer.deliver(into: &batch)
    }
}
