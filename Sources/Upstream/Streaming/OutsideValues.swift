import Contract
import JSONCodec

/// Bounds for numbers sent by upstreams.
extension JSONScanner {
    /// Maximum value of a number from an upstream. All integers up to it are exact as a `Double`.
    static var maximumFigure: Int { 1 << 53 }

    /// Reads a count, clamped to 0...2^53; nil for `null`.
    /// - Throws: `JSONError` for anything but a whole number or `null`.
    mutating func figure() throws(JSONError) -> Int? {
        guard try !null() else { return nil }
        _ = peek()
        let start = offset
        guard let value = Double(try number()), value.isInfinite || value == value.rounded(.towardZero) else {
            throw JSONError("a whole number was expected", at: start)
        }
        return Int(min(max(value, 0), Double(Self.maximumFigure)))
    }
}
