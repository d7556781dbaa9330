/// Adapts the minimum interval between the writes of one generation to the token rate of the worker.
///
/// A low rate writes each token at once. Redis takes two commands per write, and saturates at some tens of thousands of tokens per second
/// over all workers. A worker that approaches this rate lets each generation collect tokens for a short time. Generations slower than the
/// interval, first tokens and terminal events are not delayed.
struct OutputPace {
    /// Tokens per second up to which the interval is 0. At twice this rate it reaches `longest`.
    static let freeTokenRate = 20_000
    /// Maximum interval in ns.
    static let longest: UInt64 = 100_000_000
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
        let excess = (rate - Double(Self.freeTokenRate)) / Double(Self.freeTokenRate)
        interval = UInt64(Double(Self.longest) * min(1, max(0, excess)))
        tokens = 0
        windowBegan = now
    }
}

/// A timer wheel of elements with a deferred write, with a resolution of 1 ms. Adding and removing take constant time, and no element
/// needs its own timer.
struct DeferredWrites<Element> {
    /// Number of wheel positions, more than the longest interval in ms.
    private static var slots: Int { 128 }
    /// Duration of one position in ns.
    private static var slot: UInt64 { 1_000_000 }

    private var waiting: [[Element]] = Array(repeating: [], count: Self.slots)
    /// The last released position, in ms of CLOCK_MONOTONIC.
    private var reached: UInt64 = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// Adds an element.
    /// - Parameters:
    ///   - due: CLOCK_MONOTONIC ns; a time beyond the last position is moved to it.
    ///   - now: CLOCK_MONOTONIC ns.
    mutating func add(_ element: Element, until due: UInt64, now: UInt64) {
        if isEmpty { reached = now / Self.slot }
        // Rounded up, so that no element is released early.
        let tick = min(max((due + Self.slot - 1) / Self.slot, reached + 1), reached + UInt64(Self.slots) - 1)
        waiting[Int(tick % UInt64(Self.slots))].append(element)
        count += 1
    }

    /// Removes the due elements and passes them to `body`, earliest first.
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

    /// Removes all elements without releasing them.
    mutating func removeAll() {
        for index in waiting.indices { waiting[index] = [] }
        count = 0
    }
}
