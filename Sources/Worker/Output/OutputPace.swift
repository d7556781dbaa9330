/// Adapts the minimum interval between the write batches of a worker to its token rate.
///
/// A low rate writes each token at once. Each batch costs the worker and Redis some work whatever it carries: changes of thread, system calls
/// and wake-ups. A worker with a high rate therefore collects the tokens of all its jobs for a short time, far below what a reader notices.
/// First tokens and terminal events are not delayed.
struct OutputPace {
    /// Tokens per second up to which the interval is 0.
    static let freeTokenRate = 40_000
    /// Tokens per second from which the interval is `longest`.
    static let fullTokenRate = 120_000
    /// Maximum interval in ns.
    static let longest: UInt64 = 20_000_000
    /// Measurement window in ns.
    private static let window: UInt64 = 100_000_000

    /// The current minimum interval in ns.
    private(set) var interval: UInt64 = 0
    private var tokens = 0
    private var windowBegan: UInt64 = 0

    /// Counts received tokens.
    mutating func count(_ tokens: Int) { self.tokens += tokens }

    /// Updates the interval at the end of a window.
    /// - Parameter now: CLOCK_MONOTONIC ns.
    mutating func advance(to now: UInt64) {
        let elapsed = now &- windowBegan
        guard elapsed >= Self.window else { return }
        let rate = Double(tokens) * 1e9 / Double(elapsed)
        let excess = (rate - Double(Self.freeTokenRate)) / Double(Self.fullTokenRate - Self.freeTokenRate)
        interval = UInt64(Double(Self.longest) * min(1, max(0, excess)))
        tokens = 0
        windowBegan = now
    }
}
