extension Duration {
    /// Whole milliseconds, rounded towards zero; saturates at the bounds of `Int`.
    package var wholeMilliseconds: Int { whole(perSecond: 1_000, attosecondsPerUnit: 1_000_000_000_000_000) }

    /// Whole microseconds, rounded towards zero; saturates at the bounds of `Int`.
    package var wholeMicroseconds: Int { whole(perSecond: 1_000_000, attosecondsPerUnit: 1_000_000_000_000) }

    /// Whole nanoseconds, rounded towards zero; saturates at the bounds of `Int`.
    package var wholeNanoseconds: Int { whole(perSecond: 1_000_000_000, attosecondsPerUnit: 1_000_000_000) }

    /// Whole nanoseconds for a timeout on `MonotonicClock`: 0 for a negative duration, and at most 100 years, so that adding the current time
    /// cannot overflow.
    package var timeoutNanoseconds: UInt64 { UInt64(Swift.min(Swift.max(0, wholeNanoseconds), 3_153_600_000_000_000_000)) }

    /// Whole seconds, rounded towards zero.
    package var wholeSeconds: Int { Int(clamping: components.seconds) }

    /// The whole number of units, rounded towards zero and clamped to the range of `Int`.
    private func whole(perSecond: Int64, attosecondsPerUnit: Int64) -> Int {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: perSecond)
        guard !overflow else { return seconds < 0 ? .min : .max }
        let (sum, sumOverflow) = product.addingReportingOverflow(attoseconds / attosecondsPerUnit)
        guard !sumOverflow else { return seconds < 0 ? .min : .max }
        return Int(clamping: sum)
    }
}
