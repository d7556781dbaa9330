/// A token bucket that refills at a constant rate up to a burst size. It can also go negative (`charge`).
struct Allowance {
    private let perSecond: Int
    private let burst: Int
    /// Thousandths of a token; negative when in debt.
    private var level: Int
    private var last: Int

    /// - Parameters:
    ///   - perSecond: refill rate in tokens; 0: no limit.
    ///   - burst: capacity in tokens; nil: one second's worth.
    ///   - milliseconds: current time.
    init(perSecond: Int, burst: Int? = nil, milliseconds: Int) {
        self.perSecond = perSecond
        self.burst = burst ?? perSecond
        level = self.burst * 1_000
        last = milliseconds
    }

    /// Takes one token.
    /// - Returns: false when none is available.
    mutating func take(milliseconds: Int) -> Bool {
        guard perSecond > 0 else { return true }
        refill(milliseconds)
        guard level >= 1_000 else { return false }
        level -= 1_000
        return true
    }

    /// Takes `cost` tokens, going into debt if fewer are available.
    mutating func charge(_ cost: Int, milliseconds: Int) {
        guard perSecond > 0 else { return }
        refill(milliseconds)
        level -= min(cost, 1 << 40) * 1_000
    }

    /// - Returns: milliseconds until the debt is paid; 0 when there is none.
    mutating func debt(milliseconds: Int) -> Int {
        guard perSecond > 0 else { return 0 }
        refill(milliseconds)
        return level >= 0 ? 0 : (-level + perSecond - 1) / perSecond
    }

    private mutating func refill(_ milliseconds: Int) {
        // The wall clock may step: a step back adds nothing, a step forward at most one second's worth.
        let passed = min(max(0, milliseconds - last), 1_000)
        last = milliseconds
        level = min(burst * 1_000, level + passed * perSecond)
    }
}

/// Limit on what a socket may send before it is registered. Small, because the client is not authenticated yet.
struct UnregisteredBudget {
    static let maximumBytes = 64 << 10
    static let maximumMessages = 8
    /// Bytes charged per frame in addition to its payload, so that tiny fragments are limited too.
    private static let frameCost = 64

    private var bytes = 0
    private var messages = 0

    /// Charges one frame, before it is parsed.
    /// - Returns: the code to close the socket with; nil when the frame is within the budget.
    mutating func take(bytes count: Int, startsMessage: Bool) -> CloseCode? {
        bytes += count + Self.frameCost
        if startsMessage { messages += 1 }
        if bytes > Self.maximumBytes { return .messageTooBig }
        return messages > Self.maximumMessages ? .tooManyMessages : nil
    }
}
