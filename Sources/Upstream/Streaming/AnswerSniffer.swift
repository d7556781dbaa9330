import Contract
import CurlTransport
import JSONCodec
import Support

/// Decoder for a 2xx response that is an event stream, or one JSON document if the upstream ignored `stream`. The first byte decides, because
/// the content type is often wrong.
final class AnswerSniffer: StreamDecoder {
    /// Decodes a document and appends its output.
    typealias Document = (Span<UInt8>, inout OutputBatch) throws(Failure) -> Void

    /// Maximum size of a document in bytes.
    static let documentLimit = 16 << 20

    /// `unknown` becomes `stream` or `document`; `document` becomes `read` when the body has ended.
    private enum Kind {
        case unknown
        case stream
        case document([UInt8])
        case read
    }

    private let stream: any StreamDecoder
    private let document: Document
    /// Whether the content type says that the response is an event stream.
    private let isDeclaredStream: Bool
    private var kind = Kind.unknown

    /// - Parameters:
    ///   - stream: decodes an event stream.
    ///   - document: decodes a document.
    init(_ head: HTTPResponseHead, stream: any StreamDecoder, document: @escaping Document) {
        isDeclaredStream = head.contentType == "text/event-stream"
        self.stream = stream
        self.document = document
    }

    /// Whether a response of this content type may be an event stream or a document.
    static func accepts(_ contentType: String) -> Bool { ["text/event-stream", "application/json", ""].contains(contentType) }

    /// The failure for a response of another content type.
    static func rejected(_ head: HTTPResponseHead) -> Failure {
        Failure(
            .upstreamProtocol,
            "the upstream's response has content type \(head.contentType.cut(toBytes: 100)) instead of text/event-stream",
            upstreamStatus: head.status)
    }

    var isComplete: Bool {
        switch kind {
        case .stream: stream.isComplete
        case .read: true
        case .unknown, .document: false
        }
    }

    var isOver: Bool { if case .stream = kind { stream.isOver } else { false } }

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
            case 0xEF, UInt8(ascii: ":"), UInt8(ascii: "d"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "r"): kind = .stream
            case _ where isDeclaredStream: kind = .stream
            default: throw Failure(.upstreamProtocol, "the upstream's response is neither an event stream nor JSON")
            }
        }
        switch kind {
        case .stream: try stream.receive(bytes, into: &batch)
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
        case .stream: try stream.finish(into: &batch)
        case .document(let bytes):
            try document(bytes.span, &batch)
            kind = .read
        case .unknown, .read: break
        }
    }
}
