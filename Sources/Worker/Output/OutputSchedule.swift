/// An output that an `OutputSchedule` writes.
protocol ScheduledOutput: AnyObject {
    /// Whether it is written with the next batch. Belongs to the schedule.
    var isScheduled: Bool { get set }
    /// Whether its next write is latency-critical.
    var isUrgent: Bool { get }
}

/// Decides when the generations of a worker write: which of them in the next batch, and when that batch is due. No I/O; times are
/// CLOCK_MONOTONIC ns.
///
/// An idle worker writes a token at once. While a batch has no reply, further tokens wait for it, so that the size of the batches follows what
/// Redis and the threads between can carry. Under load one switch to the thread of the Redis connection carries the tokens of all streams,
/// instead of one wake-up per token.
struct OutputSchedule<Output: ScheduledOutput> {
    /// Maximum wait for the reply to the last batch. First tokens, terminal events and hand-backs do not wait.
    static var replyWait: UInt64 { 1_000_000 }

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
    /// Batches without a reply.
    private var unanswered = 0
    /// Outputs of the next batch.
    private var scheduled: [Output] = []
    private var pace: OutputPace

    init(pace: OutputPace = OutputPace()) { self.pace = pace }

    /// Counts received tokens for the interval between batches.
    mutating func count(_ tokens: Int) { pace.count(tokens) }

    /// Adds an output to the next batch.
    /// - Parameter now: read only if needed.
    mutating func add(_ output: Output, now: @autoclosure () -> UInt64) -> Action {
        if !output.isScheduled {
            output.isScheduled = true
            scheduled.append(output)
        } else if !output.isUrgent {
            return .none
        }
        return nextBatch(isUrgent: output.isUrgent, now: now())
    }

    /// Decides when the next batch is due.
    /// - Parameter isUrgent: bypasses the intervals.
    private mutating func nextBatch(isUrgent: Bool, now: @autoclosure () -> UInt64) -> Action {
        guard state == .idle || isUrgent && state == .byTimer else { return .none }
        if !isUrgent {
            let interval = pace.interval > 0 ? pace.interval : unanswered > 0 ? Self.replyWait : 0
            let elapsed = interval > 0 ? now() &- lastBatchAt : 0
            if elapsed < interval {
                state = .byTimer
                return .writeAfter(nanoseconds: interval - elapsed)
            }
        }
        state = .atEndOfTurn
        return .writeAtEndOfTurn
    }

    /// Begins a batch.
    /// - Returns: the outputs that write with it; the caller sets `isScheduled` to false.
    mutating func beginBatch(at now: UInt64) -> [Output] {
        state = .idle
        lastBatchAt = now
        pace.advance(to: now)
        let due = scheduled
        scheduled.removeAll(keepingCapacity: true)
        return due
    }

    /// Records that a batch was sent. `answered` must follow once.
    mutating func sent() { unanswered += 1 }

    /// Records the reply to a batch, or its loss.
    mutating func answered() -> Action {
        unanswered -= 1
        guard unanswered == 0, state == .byTimer, pace.interval == 0, !scheduled.isEmpty else { return .none }
        state = .atEndOfTurn
        return .writeAtEndOfTurn
    }
}
