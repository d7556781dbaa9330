/// Decides when the generations of a worker write: which of them in the next batch, and when that batch is due. No I/O; times are
/// CLOCK_MONOTONIC ns.
///
/// An idle worker writes a token at once. Under load one switch to the thread of the Redis connection carries the tokens of all streams,
/// instead of one wake-up per token.
struct OutputSchedule {
    /// Minimum interval between batches. First tokens, terminal events and hand-backs bypass it.
    static let batchInterval: UInt64 = 1_000_000

    /// What the caller must arrange for the next batch.
    enum Action: Equatable {
        /// Nothing: the next batch is arranged already, or none is needed.
        case none
        /// Write at the end of the loop's turn. Replaces an earlier `writeAfter`.
        case writeAtEndOfTurn
        case writeAfter(nanoseconds: UInt64)
    }

    private enum State {
        /// → atEndOfTurn, byTimer
        case idle
        /// → atEndOfTurn, idle
        case byTimer
        /// → idle
        case atEndOfTurn
    }

    private var state = State.idle
    private var lastBatchAt: UInt64 = 0
    /// Generations with output for the next batch.
    private var scheduled: [Generation] = []
    /// Generations whose next write is deferred by `pace`.
    private var deferred = DeferredWrites<Generation>()
    private var pace = OutputPace()

    /// Counts received tokens for the write interval.
    mutating func count(_ tokens: Int) { pace.count(tokens) }

    /// Adds a generation to the next batch that its write interval permits.
    /// - Parameter now: read only if needed.
    mutating func add(_ generation: Generation, now: @autoclosure () -> UInt64) -> Action {
        guard !generation.isScheduled else { return .none }
        if pace.interval > 0 {
            let now = now()
            let due = generation.nextWriteAt(interval: pace.interval)
            if due > now {
                if !generation.isDeferred {
                    generation.isDeferred = true
                    deferred.add(generation, until: due, now: now)
                }
                return nextBatch(afterAtLeast: Self.batchInterval, isUrgent: false, now: now)
            }
        }
        generation.isScheduled = true
        scheduled.append(generation)
        return nextBatch(afterAtLeast: 0, isUrgent: generation.isUrgent, now: now())
    }

    /// Decides when the next batch is due.
    /// - Parameters:
    ///   - wait: minimum wait in ns.
    ///   - isUrgent: bypasses the minimum interval between batches.
    private mutating func nextBatch(afterAtLeast wait: UInt64, isUrgent: Bool, now: @autoclosure () -> UInt64) -> Action {
        guard state == .idle || isUrgent && state == .byTimer else { return .none }
        let elapsed = now() &- lastBatchAt
        if isUrgent || wait == 0 && elapsed >= Self.batchInterval {
            state = .atEndOfTurn
            return .writeAtEndOfTurn
        }
        state = .byTimer
        return .writeAfter(nanoseconds: max(wait, Self.batchInterval &- min(elapsed, Self.batchInterval)))
    }

    /// Begins a batch.
    /// - Returns: the generations that write with it; the caller sets `isScheduled` to false.
    mutating func beginBatch(at now: UInt64) -> [Generation] {
        state = .idle
        lastBatchAt = now
        pace.advance(to: now)
        deferred.release(at: now) { generation in
            generation.isDeferred = false
            guard !generation.isScheduled else { return }
            generation.isScheduled = true
            scheduled.append(generation)
        }
        let due = scheduled
        scheduled.removeAll(keepingCapacity: true)
        return due
    }

    /// Ends a batch; deferred generations need another one.
    mutating func endBatch(now: @autoclosure () -> UInt64) -> Action {
        deferred.isEmpty ? .none : nextBatch(afterAtLeast: Self.batchInterval, isUrgent: false, now: now())
    }

    /// Forgets the deferred generations.
    mutating func removeDeferred() { deferred.removeAll() }
}
