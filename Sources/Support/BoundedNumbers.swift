/// Arithmetic without overflow, for numbers from clients, upstreams, Redis or files.
extension Int {
    /// 2^53 − 1, the largest whole number that every JSON reader represents exactly. External numbers are limited to `0...maximumExact`.
    package static let maximumExact = 9_007_199_254_740_991

    /// The value rounded towards zero and clamped to `-maximumExact...maximumExact`; 0 for NaN.
    package init(bounding value: Double) {
        guard !value.isNaN else { self = 0; return }
        self = Int(Swift.min(Swift.max(value, -Double(Self.maximumExact)), Double(Self.maximumExact)))
    }

    /// The value clamped to `0...maximumExact`.
    package var boundedCount: Int { Swift.min(Swift.max(self, 0), Self.maximumExact) }

    /// The sum, clamped to the range of `Int`.
    package func saturatingAdding(_ other: Int) -> Int {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    /// The difference, clamped to the range of `Int`.
    package func saturatingSubtracting(_ other: Int) -> Int {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }

    /// The product, clamped to the range of `Int`.
    package func saturatingMultiplied(by other: Int) -> Int {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? ((self < 0) == (other < 0) ? .max : .min) : product
    }
}

extension Double {
    /// The value clamped to `0...Int.maximumExact`; 0 for NaN. For external rates and counts.
    package var boundedRate: Double { isNaN ? 0 : Swift.min(Swift.max(self, 0), Double(Int.maximumExact)) }
}
