/// A token bucket that limits requests per minute. It starts full and is refilled evenly. Pure state; the caller passes the time.
struct TokenBucket: Equatable {
    private(set) var perMinute: Int
    private var tokens: Double
    private var filledAt: UInt64

    /// - Parameters:
    ///   - perMinute: capacity and refill rate; must be at least 1.
    ///   - now: CLOCK_MONOTONIC ns.
    init(perMinute: Int, now: UInt64) {
        self.perMinute = perMinute
        tokens = Double(perMinute)
        filledAt = now
    }

    /// Takes one token.
    /// - Returns: nil on success, else the time until the next token is available.
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
