import Contract

/// Decides which of the events that come in may be passed on: in order, without gap or duplicate, nothing after the end. No I/O.
///
/// A gap, and every change of attempt (its predecessor's last message may be lost without a trace), is filled from the log before anything
/// further is passed on.
struct EventSequence {
    enum Action: Equatable {
        /// To be passed on; may be empty.
        case deliver([LoggedEvent])
        /// Read the log after `after`, then call `filled`.
        case fill(after: EventID?)
    }

    /// Live events kept while the log is read. Beyond it they are dropped: the log has them, and the next gap finds that out.
    static let heldMaximum = 1_000

    private(set) var last: EventID?
    private(set) var ended = false
    private(set) var filling = false
    /// What was held back while the log was read did not follow on it: the log is to be read again.
    private(set) var hasGap = false
    private var held: [LoggedEvent] = []

    init(after: EventID?) { last = after }

    /// Live events, in the order in which they were published.
    mutating func offer(_ events: [LoggedEvent]) -> Action {
        guard !ended else { return .deliver([]) }
        if filling {
            if events.count <= Self.heldMaximum - held.count { held += events }
            return .deliver([])
        }
        // The common case by far: all of it follows what was there.
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
            held = fresh.count <= Self.heldMaximum ? fresh : []
            return .fill(after: last)
        }
        return .deliver(accept(fresh))
    }

    /// Something may have been missed: look into the log.
    mutating func suspect() -> Action {
        guard !ended, !filling else { return .deliver([]) }
        filling = true
        return .fill(after: last)
    }

    /// A part of what the log held; the next one follows.
    mutating func filledInPart(_ events: [LoggedEvent]) -> [LoggedEvent] {
        accept(events.filter { event in last.map { event.id > $0 } ?? true })
    }

    /// What the log held, or the last part of it. The events held back are judged again behind it.
    mutating func filled(_ events: [LoggedEvent]) -> [LoggedEvent] {
        var delivered = filledInPart(events)
        let waiting = held
        held = []
        filling = false
        hasGap = false
        for event in waiting where !ended && last.map({ event.id > $0 }) ?? true {
            guard event.id == (last?.next ?? EventID(attempt: 1, sequence: 0)) else {
                // The log was read before this was written. Nothing behind it may pass: an older attempt's event behind a newer one's first
                // would look as if it followed.
                hasGap = true
                break
            }
            delivered += accept([event])
        }
        return delivered
    }

    /// The log could not be read; the next look tries again.
    mutating func fillFailed() {
        filling = false
        held = []
    }

    /// Neither log nor record are there any more: what is passed on instead of the end that will never come.
    mutating func lost() -> [LoggedEvent] {
        guard !ended else { return [] }
        ended = true
        held = []
        let id = last?.nextAttempt ?? EventID(attempt: 1, sequence: 0)
        last = id
        let failure = Failure(.internal, "Redis lost the job; send it again")
        return [LoggedEvent(id: id, event: .failed(failure, Usage(promptTokens: 0, completionTokens: 0, estimated: true)))]
    }

    private mutating func accept(_ events: [LoggedEvent]) -> [LoggedEvent] {
        guard !ended else { return [] }
        if let end = events.firstIndex(where: { $0.event.isTerminal }) {
            ended = true
            last = events[end].id
            return Array(events[...end])
        }
        if let newest = events.last { last = newest.id }
        return events
    }
}
