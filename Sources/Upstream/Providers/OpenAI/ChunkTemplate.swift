import JSONCodec
import Support

/// Decodes chunks of an OpenAI-compatible stream, with a short cut for chunks that differ from an earlier one in their text only, as almost
/// all chunks of a stream do.
///
/// A template is the bytes before and after the text in one chunk, with the decoded chunk. Whether a place in the bytes is that of the text is
/// tested once, by decoding the chunk with another text at this place. JSON between the same bytes has the same structure whatever text is in
/// a string, so a chunk that fits the template decodes to the same values with its own text.
struct ChunkTemplate {
    /// Maximum bytes of a chunk that becomes a template.
    private static let maximumSize = 4 << 10
    /// Templates that are made in succession without a chunk that fits.
    private static let maximumAttempts = 4

    private var before: [UInt8] = []
    private var after: [UInt8] = []
    /// The chunk of the template; nil without a template.
    private var decoded: OpenAIChunk?
    private var isReasoning = false
    private var attempts = 0

    /// Decodes a chunk.
    /// - Throws: `JSONError` for invalid JSON.
    mutating func decode(_ bytes: Span<UInt8>) throws(JSONError) -> OpenAIChunk {
        if let chunk = fit(bytes) {
            attempts = 0
            return chunk
        }
        let chunk = try OpenAIChunk(scanning: bytes)
        learn(chunk, bytes)
        return chunk
    }

    /// The decoded chunk if the bytes fit the template; nil otherwise.
    func fit(_ bytes: Span<UInt8>) -> OpenAIChunk? {
        guard var chunk = decoded, bytes.count > before.count + after.count, bytes.extracting(first: before.count).equals(before.span),
            bytes.extracting(last: after.count).equals(after.span)
        else { return nil }
        let raw = bytes.extracting(before.count..<bytes.count - after.count)
        // The string must end where the template says, and need no unescaping.
        guard raw.firstOffset(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }) == nil,
            let text = String(validating: raw)
        else { return nil }
        if isReasoning { chunk.delta.reasoning = TextPiece(text) } else { chunk.delta.content = TextPiece(text) }
        return chunk
    }

    /// Makes a template of a decoded chunk if its text is a string without escapes.
    private mutating func learn(_ chunk: OpenAIChunk, _ bytes: Span<UInt8>) {
        guard attempts < Self.maximumAttempts, bytes.count <= Self.maximumSize else { return }
        let inReasoning = chunk.delta.content.isEmpty
        let piece = inReasoning ? chunk.delta.reasoning : chunk.delta.content
        guard !piece.text.isEmpty, piece.low == nil, piece.high == nil else { return }
        attempts += 1
        let string = Array(("\"" + piece.text + "\"").utf8)
        guard let start = Self.offset(of: string, in: bytes) else { return }
        let (first, last) = (start + 1, start + string.count - 1)
        var other = [UInt8](copying: bytes.extracting(first: last))
        other.append(UInt8(ascii: "+"))
        other.append(copying: bytes.extracting(last..<bytes.count))
        guard let test = try? OpenAIChunk(scanning: other.span) else { return }
        let tested = inReasoning ? test.delta.reasoning : test.delta.content
        guard tested == TextPiece(piece.text + "+"), (inReasoning ? test.delta.content : test.delta.reasoning).isEmpty else { return }
        before = [UInt8](copying: bytes.extracting(first: first))
        after = [UInt8](copying: bytes.extracting(last..<bytes.count))
        decoded = chunk
        isReasoning = inReasoning
    }

    /// The offset of the first occurrence of `string`.
    private static func offset(of string: [UInt8], in bytes: Span<UInt8>) -> Int? {
        var from = 0
        while from + string.count <= bytes.count {
            guard let found = bytes.firstOffset(of: string[0], in: from..<bytes.count - string.count + 1) else { return nil }
            if bytes.extracting(found..<found + string.count).equals(string.span) { return found }
            from = found + 1
        }
        return nil
    }
}
