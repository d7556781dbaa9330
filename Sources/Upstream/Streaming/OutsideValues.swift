import Contract
import JSONCodec

/// Bounds on the numbers of upstreams.
extension JSONScanner {
    /// The most that a number of an upstream counts as: every whole number up to here is exact as a `Double`, too.
    static var maximumFigure: Int { 1 << 53 }

    /// A count that an upstream states, clamped to 0…2^53; nil for `null`.
    /// - Throws: for a number that is not whole, and for anything else.
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
