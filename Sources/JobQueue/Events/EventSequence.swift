import Contract

/// Orders the events of a job for one reader: no gaps, no duplicates, nothing after the terminal event. A state machine without I/O.
///
/// The log is read before further events are delivered after a gap and after every change of attempt, because a lost last message of the
/// older attempt leaves no gap in the ids.
struct EventSequence {
    enum Action: Equatable {
        /// Deliver these events; may be empty.
        case deliver([LoggedEvent])
        /// Read the log after `after`, then call `filled`.
        case fill(after: EventID?)
    }

    /// Maximum number of live events held while the log is read, and their maximum size in bytes. Beyond it they are dropped, and the log is
    /// read again.
    static let heldMaximum = 1_000
    static let heldMaximumBytes = 256 << 10

    private(set) var last: EventID?
    private(set) var ended = false
    private(set) var filling = false
    /// Whether the held events do not continue the log as it was read, so that the log must be read again.
    private(set) var hasGap = false
    private var held: [LoggedEvent] = []
    private var heldBytes = 0
    /// Whether live events were dropped since the read of the log began.
    private var hasDropped = false
    /// The last delivered event; nil when nothing was delivered here.
    private(set) var shown: LoggedEvent?
    /// Whether the log must be compared with `shown` before more is delivered: Redis may have come back with older data, in which another worker
    /// has claimed the attempt that this reader has seen.
    private(set) var mustCompare = false

    init(after: EventID?) { last = after }

    /// Accepts live events in the order of publication.
    mutating func offer(_ events: [LoggedEvent]) -> Action {
        guard !ended else { return .deliver([]) }
        if mustCompare, !filling {
            filling = true
            releaseHeld()
            return .fill(after: last)
        }
        if filling {
            hold(events)
            return .deliver([])
        }
        // Fast path, the common case: all events continue the sequence.
        var expected = last?.next ?? EventID(attempt: 1, sequence: 0)
        var whole = true
        for event in events {
            guard event.id == expected else {
                whole = false
                break
            }
            expected = expected.next
        }
        if whole { return .deliver(accept(events)) }
        let fresh = events.filter { event in last.map { event.id > $0 } ?? true }
        guard let first = fresh.first else { return .deliver([]) }
        guard first.id == (last?.next ?? EventID(attempt: 1, sequence: 0)),
            zip(fresh, fresh.dropFirst()).allSatisfy({ $1.id == $0.id.next })
        else {
            filling = true
            hold(fresh)
            return .fill(after: last)
        }
        return .deliver(accept(fresh))
    }

    /// Keeps live events until the log is read, or drops them when they are too many.
    private mutating func hold(_ events: [LoggedEvent]) {
        guard !hasDropped else { return }
        heldBytes += events.reduce(0) { $0 + $1.approximateSize }
        if events.count <= Self.heldMaximum - held.count, heldBytes <= Self.heldMaximumBytes {
            held += events
        } else {
            releaseHeld()
            hasDropped = true
        }
    }

    private mutating func releaseHeld() {
        held = []
        heldBytes = 0
        hasDropped = false
    }

    /// Arranges that the next read of the log begins with a comparison.
    mutating func compareFirst() { mustCompare = !ended && shown != nil }

    /// What the log shows of the last delivered event.
    enum Comparison {
        /// The log continues what was delivered, or holds a newer attempt, with which readers start again.
        case continued
        /// The log does not reach as far as what was delivered. Its worker may still write the rest again.
        case behind
        /// The log holds another history with the same ids.
        case rewritten
    }

    /// Compares the log with what was delivered.
    /// - Parameters:
    ///   - logged: the event in the log with the id of `shown`; nil without one.
    ///   - reached: the first id in the log from that of `shown` on; nil if the log does not reach as far.
    mutating func compare(logged: LoggedEvent?, reached: EventID?) -> Comparison {
        guard mustCompare, let shown, logged != shown else {
            mustCompare = false
            return .continued
        }
        guard let reached else { return .behind }
        mustCompare = false
        // The first event of an attempt only names its worker, so that another one with this id contradicts nothing, unless it is the end.
        if shown.id.sequence == 0, logged?.event.isTerminal != true { return .continued }
        // The rest of this attempt belongs to the other history.
        last = EventID(attempt: shown.id.attempt, sequence: .max)
        return reached.attempt > shown.id.attempt ? .continued : .rewritten
    }

    /// Requests a read of the log because events may be missing.
    mutating func suspect() -> Action {
        guard !ended, !filling else { return .deliver([]) }
        filling = true
        return .fill(after: last)
    }

    /// Accepts a page of events read from the log when another page follows.
    /// - Returns: the events to deliver.
    mutating func filledInPart(_ events: [LoggedEvent]) -> [LoggedEvent] {
        accept(events.filter { event in last.map { event.id > $0 } ?? true })
    }

    /// Accepts the last page of events read from the log, then the held live events that continue it.
    /// - Returns: the events to deliver.
    mutating func filled(_ events: [LoggedEvent]) -> [LoggedEvent] {
        var delivered = filledInPart(events)
        let waiting = held
        filling = false
        hasGap = hasDropped && !ended
        releaseHeld()
        for event in waiting where !ended && last.map({ event.id > $0 }) ?? true {
            guard event.id == (last?.next ?? EventID(attempt: 1, sequence: 0)) else {
                // The log was read before this event was written. Later held events must not pass either: an event of an older attempt
                // after the first one of a newer attempt would look contiguous.
                hasGap = true
                break
            }
            delivered += accept([event])
        }
        return delivered
    }

    /// Ends a failed read of the log; the next check retries.
    mutating func fillFailed() {
        filling = false
        releaseHeld()
    }

    /// Ends the sequence of a job whose log and record are missing.
    /// - Returns: a `failed` event in place of the terminal event that will never arrive.
    mutating func lost() -> [LoggedEvent] {
        guard !ended else { return [] }
        ended = true
        releaseHeld()
        let id = last?.nextAttempt ?? EventID(attempt: 1, sequence: 0)
        last = id
        let failure = Failure(.internal, "Redis lost the job; send it again")
        return [LoggedEvent(id: id, event: .failed(failure, Usage(promptTokens: 0, completionTokens: 0, estimated: true)))]
    }

    /// Ends the sequence with a terminal event whose id is not above the last one that the reader has. Nothing can follow it. Such a `finished` ends
    /// another history than the one that was delivered, so that the reader receives `failed` instead. The id of what is delivered is above the last
    /// one that the reader has, unless the reader may have this event already: readers ignore older ids.
    /// - Returns: the events to deliver; none if the event has a higher id.
    mutating func end(with event: LoggedEvent) -> [LoggedEvent] {
        guard !ended, let last, event.id <= last, event.event.isTerminal else { return [] }
        if shown != nil, case .finished = event.event { return lost() }
        ended = true
        releaseHeld()
        let isRepeated = event.id == last && shown == nil
        let id = isRepeated ? last : last.nextAttempt
        self.last = id
        return [LoggedEvent(id: id, event: event.event)]
    }

    /// Updates `last` and `ended`, and drops events after a terminal one.
    private mutating func accept(_ events: [LoggedEvent]) -> [LoggedEvent] {
        guard !ended else { return [] }
        if let end = events.firstIndex(where: { $0.event.isTerminal }) {
            ended = true
            last = events[end].id
            shown = nil
            return Array(events[...end])
        }
        if let newest = events.last {
            last = newest.id
            shown = newest
        }
        return events
    }
}
