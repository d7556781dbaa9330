/// Exponential back-off with jitter, so that many nodes do not retry at the same moment.
package struct Backoff: Sendable {
    /// The part of a delay that jitter does not shorten: 0 for full jitter, 1 for no jitter.
    private let minimumShare: Double
    private let initial: Duration
    private let maximum: Duration
    /// Number of delays since the start or the last `reset`, at most 62.
    package private(set) var attempts = 0

    /// - Parameters:
    ///   - initial: the upper bound of the first delay; doubles with each attempt.
    ///   - maximum: the upper bound of every later delay.
    ///   - minimumShare: 0 for full jitter, 0.5 to keep at least half of each delay.
    package init(from initial: Duration, to maximum: Duration, minimumShare: Double = 0) {
        self.initial = initial
        self.maximum = maximum
        self.minimumShare = min(max(0, minimumShare), 1)
    }

    /// The delay before the next attempt.
    /// - Parameter random: 0 to 1; tests pass a fixed value.
    package mutating func next(random: Double = .random(in: 0...1)) -> Duration {
        let bound = Self.bound(initial, maximum, attempt: attempts)
        attempts = min(attempts + 1, 62)
        return bound * (minimumShare + (1 - minimumShare) * min(max(0, random), 1))
    }

    /// Starts again with the first delay.
    package mutating func reset() { attempts = 0 }

    /// The upper bound of a delay.
    private static func bound(_ initial: Duration, _ maximum: Duration, attempt: Int) -> Duration {
        var bound = initial
        for _ in 0..<attempt {
            guard bound < maximum else { break }
            bound *= 2
        }
        return min(bound, maximum)
    }
}
