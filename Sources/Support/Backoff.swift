/// Exponential back-off with jitter, so that many nodes do not retry at the same moment.
package struct Backoff: Sendable {
    private let initial: Duration
    private let maximum: Duration
    private let minimumShare: Double
    /// Number of delays since the start or the last `reset`.
    package private(set) var attempts = 0

    /// - Parameters:
    ///   - initial: the upper bound of the first delay; doubles with each attempt.
    ///   - maximum: the upper bound of every later delay.
    ///   - minimumShare: the part of a delay that jitter does not shorten: 0 for full jitter, 0.5 to keep at least half of each delay.
    package init(from initial: Duration, to maximum: Duration, minimumShare: Double = 0) {
        self.initial = initial
        self.maximum = maximum
        self.minimumShare = min(max(0, minimumShare), 1)
    }

    /// The delay before the next attempt.
    /// - Parameter random: 0 to 1; tests pass a fixed value.
    package mutating func next(random: Double = .random(in: 0...1)) -> Duration {
        let bound = Self.bound(from: initial, to: maximum, attempt: attempts)
        attempts = attempts.saturatingAdding(1)
        return bound * (minimumShare + (1 - minimumShare) * min(max(0, random), 1))
    }

    /// Starts again with the first delay.
    package mutating func reset() { attempts = 0 }

    /// The upper bound of a delay, for callers that count their attempts themselves.
    /// - Parameter attempt: number of earlier attempts.
    package static func bound(from initial: Duration, to maximum: Duration, attempt: Int) -> Duration {
        var bound = initial
        for _ in 0..<min(max(0, attempt), 62) {
            guard bound < maximum else { break }
            bound *= 2
        }
        return min(bound, maximum)
    }
}
