import Contract
import JSONCodec
import Support

/// Tolerant reading of what upstreams send: an odd side value must not cost the answer.
extension JSONScanner {
    /// Maximum value of a number from an upstream. All integers up to it are exact as a `Double`.
    static var maximumFigure: Int { 1 << 53 }

    /// Reads a count, clamped to 0...2^53, as a number or as a string of digits. Any other value counts as absent: nil.
    mutating func figure() throws(JSONError) -> Int? {
        // `Double` also accepts words such as "inf" and hexadecimal digits.
        guard let text = try scalar(), text.utf8.allSatisfy({ $0 &- 0x30 < 10 || "+-.eE".utf8.contains($0) }), let value = Double(text),
            value.isInfinite || value == value.rounded(.towardZero)
        else { return nil }
        return Int(min(max(value, 0), Double(Self.maximumFigure)))
    }

    /// Reads a string, or the literal text of a number or boolean. Returns nil for null, arrays and objects, which are skipped.
    mutating func scalar() throws(JSONError) -> String? {
        switch peek() {
        case UInt8(ascii: "\""): return try string()
        case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: "n"), nil:
            try skip()
            return nil
        default: return try raw()
        }
    }

    /// Reads an object. Any other value, such as PHP's `[]` for an empty object, is skipped.
    mutating func objectIfPresent(_ body: (JSONKey, inout JSONScanner) throws(JSONError) -> Void) throws(JSONError) {
        guard peek() == UInt8(ascii: "{") else { return try skip() }
        try object(body)
    }

    /// Reads an array. Any other value is skipped.
    mutating func arrayIfPresent(_ body: (inout JSONScanner) throws(JSONError) -> Void) throws(JSONError) {
        guard peek() == UInt8(ascii: "[") else { return try skip() }
        try array(body)
    }
}

/// Decodes JSON that may contain bytes that are not UTF-8: they become U+FFFD.
/// - Throws: `JSONError` of `body`.
func repairingUTF8<Value>(
    _ bytes: Span<UInt8>, _ body: (Span<UInt8>) throws(JSONError) -> Value
) throws(JSONError) -> Value {
    do throws(JSONError) { return try body(bytes) } catch {
        guard String(validating: bytes) == nil else { throw error }
        let repaired = Array(String(decoding: bytes).utf8)
        return try body(repaired.span)
    }
}

extension JSON {
    /// Parses a document of an upstream. Bytes that are not UTF-8 become U+FFFD.
    init(upstream document: [UInt8]) throws(JSONError) {
        self = try repairingUTF8(document.span) { (bytes) throws(JSONError) in
            try JSON(parsing: [UInt8](copying: bytes), rules: .lenient)
        }
    }
}
