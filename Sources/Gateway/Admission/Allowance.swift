/// A token bucket: so much a second, of which up to a burst may be saved up.
struct Allowance {
    private let perSecond: Int
    private let burst: Int
    /// In thousandths of a token; negative: a debt.
    private var level: Int
    private var last: Int

    /// - Parameters:
    ///   - perSecond: 0: no limit.
    ///   - burst: at most this much is saved up; nil: what comes in one second.
    ///   - milliseconds: now.
    init(perSecond: Int, burst: Int? = nil, milliseconds: Int) {
        self.perSecond = perSecond
        self.burst = burst ?? perSecond
        level = self.burst * 1_000
        last = milliseconds
    }

    /// Spends one token, if there is one.
    mutating func take(milliseconds: Int) -> Bool {
        guard perSecond > 0 else { return true }
        refill(milliseconds)
        guard level >= 1_000 else { return false }
        level -= 1_000
        return true
    }

    /// Spends `cost`, going into debt if need be.
    mutating func charge(_ cost: Int, milliseconds: Int) {
        guard perSecond > 0 else { return }
        refill(milliseconds)
        level -= min(cost, 1 << 40) * 1_000
    }

    /// Milliseconds until the debt is paid; 0: there is none.
    mutating func debt(milliseconds: Int) -> Int {
        guard perSecond > 0 else { return 0 }
        refill(milliseconds)
        return level >= 0 ? 0 : (-level + perSecond - 1) / perSecond
    }

    private mutating func refill(_ milliseconds: Int) {
        // The wall clock may step back, which adds nothing; a step forward adds no more than a second's worth.
        let passed = min(max(0, milliseconds - last), 1_000)
        last = milliseconds
        level = min(burst * 1_000, level + passed * perSecond)
    }
}

/// What a socket may send before it is registered: little, since nobody answers for it yet.
struct UnregisteredBudget {
    static let maximumBytes = 64 << 10
    static let maximumMessages = 8
    /// Charged for every frame beside its bytes, so that tiny fragments use the budget up too.
    private static let frameCost = 64

    private var bytes = 0
    private var messages = 0

    /// - Returns: the code to close with, before the frame is looked at; nil: it is within the budget.
    mutating func take(bytes count: Int, startsMessage: Bool) -> CloseCode? {
        bytes += count + Self.frameCost
        if startsMessage { messages += 1 }
        if bytes > Self.maximumBytes { return .messageTooBig }
        return messages > Self.maximumMessages ? .tooManyMessages : nil
    }
}
