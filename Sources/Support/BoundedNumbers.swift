/// Arithmetic on numbers that come from clients, upstreams, Redis or files: nothing that they hold may overflow.
extension Int {
    /// 2^53 − 1, the largest whole number that every JSON reader keeps exactly. Numbers from outside lie in `0...maximumExact`.
    package static let maximumExact = 9_007_199_254_740_991

    /// The nearest whole number in `-maximumExact...maximumExact`, fractions cut off; 0 for NaN.
    package init(bounding value: Double) {
        guard !value.isNaN else { self = 0; return }
        self = Int(Swift.min(Swift.max(value, -Double(Self.maximumExact)), Double(Self.maximumExact)))
    }

    /// The nearest number in `0...maximumExact`.
    package var boundedCount: Int { Swift.min(Swift.max(self, 0), Self.maximumExact) }

    /// The sum, or the end of the range that it would lie beyond.
    package func saturatingAdding(_ other: Int) -> Int {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    /// The difference, or the end of the range that it would lie beyond.
    package func saturatingSubtracting(_ other: Int) -> Int {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }

    /// The product, or the end of the range that it would lie beyond.
    package func saturatingMultiplied(by other: Int) -> Int {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? ((self < 0) == (other < 0) ? .max : .min) : product
    }
}

extension Double {
    /// The number in `0...Int.maximumExact`; 0 for NaN. For rates and counts from outside.
    package var boundedRate: Double { isNaN ? 0 : Swift.min(Swift.max(self, 0), Double(Int.maximumExact)) }
}
