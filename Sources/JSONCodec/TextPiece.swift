import Support

/// A string that may begin or end inside a surrogate pair. Some servers count in UTF-16 and send the escapes of one pair, such as `\ud83d`
/// and `\ude00`, in two strings.
package struct TextPiece: Sendable, Hashable {
    /// The text without the halves.
    package var text: String
    /// The second half of a pair, before the text.
    package var low: UInt16?
    /// The first half of a pair, after the text.
    package var high: UInt16?

    package init(_ text: String = "", low: UInt16? = nil, high: UInt16? = nil) {
        self.text = text
        self.low = low
        self.high = high
    }

    package var isEmpty: Bool { low == nil && high == nil && text.isEmpty }

    /// The text, with U+FFFD for each half.
    package var repaired: String { (low == nil ? "" : "\u{FFFD}") + text + (high == nil ? "" : "\u{FFFD}") }

    /// Appends a piece and joins the halves of a pair. Halves that do not match become U+FFFD.
    package mutating func append(_ next: TextPiece) {
        guard !next.isEmpty else { return }
        guard !isEmpty else {
            self = next
            return
        }
        switch (high, next.low) {
        case (let high?, let low?):
            let scalar = Unicode.Scalar(0x10000 + (UInt32(high) & 0x3FF) << 10 + (UInt32(low) & 0x3FF))
            text.unicodeScalars.append(scalar ?? "\u{FFFD}")
        case (nil, nil): break
        default: text += "\u{FFFD}"
        }
        text += next.text
        high = next.high
    }
}

/// Joins the pieces of a text, however they were cut. A first half is held back until the next piece.
package struct TextJoiner: Sendable {
    private var high: UInt16?

    package init() {}

    /// Returns the text that is complete with this piece.
    package mutating func text(_ piece: TextPiece) -> String {
        guard high != nil || piece.low != nil else {
            high = piece.high
            return piece.text
        }
        guard !piece.isEmpty else { return "" }
        var joined = TextPiece(high: high)
        joined.append(piece)
        high = joined.high
        return (joined.low == nil ? "" : "\u{FFFD}") + joined.text
    }

    /// Returns what is left at the end of the text: U+FFFD for a half, otherwise nothing.
    package mutating func rest() -> String {
        defer { high = nil }
        return high == nil ? "" : "\u{FFFD}"
    }
}

extension JSONScanner {
    /// Reads a string like `string()`, but keeps the half of a surrogate pair at its start and at its end.
    package mutating func textPiece() throws(JSONError) -> TextPiece {
        guard peek() == UInt8(ascii: "\"") else { throw JSONError("a string was expected", at: offset) }
        let (start, end, escaped) = try stringBounds()
        guard escaped else {
            guard let text = String(validating: bytes.extracting(start..<end)) else { throw JSONError("a string is not UTF-8", at: start) }
            return TextPiece(text)
        }
        var raw = bytes.extracting(start..<end)
        var piece = TextPiece()
        if let half = Self.half(raw, at: 0), half & 0xFC00 == 0xDC00 {
            piece.low = half
            raw = raw.extracting(droppingFirst: 6)
        }
        let last = raw.count - 6
        if last >= 0, let half = Self.half(raw, at: last), half & 0xFC00 == 0xD800, Self.isEscape(raw, at: last) {
            piece.high = half
            raw = raw.extracting(0..<last)
        }
        piece.text = try unescape(raw, at: start)
        return piece
    }

    /// The value of a `\u` escape; nil if there is none.
    private static func half(_ raw: Span<UInt8>, at offset: Int) -> UInt16? {
        guard offset + 6 <= raw.count, raw[offset] == UInt8(ascii: "\\"), raw[offset + 1] == UInt8(ascii: "u") else { return nil }
        return UInt16(String(decoding: raw.extracting(offset + 2..<offset + 6)), radix: 16)
    }

    /// Whether the backslash at an offset begins an escape, instead of ending the escape of a backslash.
    private static func isEscape(_ raw: Span<UInt8>, at offset: Int) -> Bool {
        var first = offset
        while first > 0, raw[first - 1] == UInt8(ascii: "\\") { first -= 1 }
        return (offset - first).isMultiple(of: 2)
    }
}
