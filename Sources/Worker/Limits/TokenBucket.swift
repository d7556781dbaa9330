/// So many requests a minute: a full bucket of them at the start, refilled evenly. Knows no clock.
struct TokenBucket: Equatable {
    private(set) var perMinute: Int
    private var tokens: Double
    private var filledAt: UInt64

    /// - Parameter now: nanoseconds.
    init(perMinute: Int, now: UInt64) {
        self.perMinute = perMinute
        tokens = Double(perMinute)
        filledAt = now
    }

    /// - Returns: nil when one was taken, else how long until there is one.
    mutating func take(at now: UInt64) -> Duration? {
        let rate = Double(perMinute) / 60_000_000_000
        if now > filledAt {
            tokens = min(Double(perMinute), tokens + Double(now - filledAt) * rate)
            filledAt = now
        }
        guard tokens < 1 else {
            tokens -= 1
            return nil
        }
        return .nanoseconds(Int64(((1 - tokens) / rate).rounded(.up)))
    }
}
