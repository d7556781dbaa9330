extension Int {
    /// Number of characters of the decimal form.
    package var decimalLength: Int {
        var digits = self < 0 ? 2 : 1
        var rest = magnitude / 10
        while rest > 0 {
            digits += 1
            rest /= 10
        }
        return digits
    }
}

extension [UInt8] {
    /// Appends the decimal form without allocating a `String`.
    package mutating func appendDecimal(_ value: Int) {
        if value >= 0, value < 10 { return append(0x30 + UInt8(truncatingIfNeeded: value)) }
        if value < 0 { append(UInt8(ascii: "-")) }
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var start = digits.count
        var rest = value.magnitude
        repeat {
            start -= 1
            digits[start] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        } while rest > 0
        append(copying: digits.span.extracting(start..<digits.count))
    }
}
