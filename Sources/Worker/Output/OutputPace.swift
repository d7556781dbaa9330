/// How far apart the writes of one generation begin, by what all generations of this worker produce together.
///
/// Alone a token is written at once. A Redis that takes two commands for each token is full at some tens of thousands of tokens a second,
/// for all workers that share it; so a worker that comes near that lets each answer collect for a moment. An answer slower than the
/// interval is never held up, nor are first tokens and ends.
struct OutputPace {
    /// Tokens a second up to which nothing is collected; at twice as many the interval is the longest.
    static let freeTokens = 20_000
    static let longest: UInt64 = 100_000_000
    private static let window: UInt64 = 100_000_000

    /// ns.
    private(set) var interval: UInt64 = 0
    private var tokens = 0
    private var windowBegan: UInt64 = 0

    mutating func count(_ tokens: Int) { self.tokens += tokens }

    /// - Parameter now: CLOCK_MONOTONIC, ns.
    mutating func advance(to now: UInt64) {
        let elapsed = now &- windowBegan
        guard elapsed >= Self.window else { return }
        let rate = Double(tokens) * 1e9 / Double(elapsed)
        let excess = (rate - Double(Self.freeTokens)) / Double(Self.freeTokens)
        interval = UInt64(Double(Self.longest) * min(1, max(0, excess)))
        tokens = 0
        windowBegan = now
    }
}

/// Generations whose next write is due later, by the millisecond. No search and no timer for each.
struct HeldWrites<Element> {
    /// Slots of 1 ms, more than the longest interval.
    private static var slots: Int { 128 }
    private static var slot: UInt64 { 1_000_000 }

    private var waiting: [[Element]] = Array(repeating: [], count: Self.slots)
    private var reached: UInt64 = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// - Parameters:
    ///   - due: CLOCK_MONOTONIC, ns; beyond the last slot it counts as that.
    ///   - now: the same clock.
    mutating func hold(_ element: Element, until due: UInt64, now: UInt64) {
        if isEmpty { reached = now / Self.slot }
        // Rounded up: nothing comes out early.
        let tick = min(max((due + Self.slot - 1) / Self.slot, reached + 1), reached + UInt64(Self.slots) - 1)
        waiting[Int(tick % UInt64(Self.slots))].append(element)
        count += 1
    }

    /// Takes out what is due, the earliest first.
    mutating func release(at now: UInt64, _ body: (Element) -> Void) {
        let tick = now / Self.slot
        while count > 0, reached < tick {
            reached += 1
            let index = Int(reached % UInt64(Self.slots))
            guard !waiting[index].isEmpty else { continue }
            count -= waiting[index].count
            for element in waiting[index] { body(element) }
            waiting[index].removeAll(keepingCapacity: true)
        }
    }

    mutating func removeAll() {
        for index in waiting.indices { waiting[index] = [] }
        count = 0
    }
}
