import Contract
import JobQueue

/// Buffer of a job's events between the upstream and the event log: pending, in flight, and written. No I/O.
///
/// Group commit: while a write is in flight, new events collect behind it, and consecutive text is merged into one event. An idle worker
/// writes a token at once; with a slow Redis the number of commands per token decreases. Ids are assigned when a write begins and never
/// change, so repeating a write is idempotent.
struct OutputLog {
    /// Unwritten bytes above which reading from the upstream is paused.
    static let highWater = 256 << 10
    /// Unwritten bytes below which reading is resumed.
    static let lowWater = 64 << 10

    /// What a comparison with the log in Redis has shown.
    enum Comparison: Equatable {
        /// The log holds all acknowledged events, or all that it lacks can be written again.
        case matches
        /// The log lacks acknowledged events that are no longer known here: Redis has come back with older data. Or another program has written
        /// to the log.
        case outdated
        /// A newer attempt has written to the log.
        case superseded
    }

    /// Id of the newest event known to be in Redis.
    private(set) var written: EventID
    /// Id of the newest entry of the log, as of the last write or comparison; nil if it is not known.
    private var logEnd: EventID?
    /// Id of the newest event that was given one. Readers may have seen it, so that no other event gets this id.
    private(set) var newest: EventID
    /// The last acknowledged events.
    private var recent = RecentEvents()
    /// Events of the current write.
    private(set) var inFlight: [(id: EventID, json: [UInt8])] = []
    /// The reply to the current write was lost: its events may or may not be in Redis.
    private(set) var uncertain = false
    /// Events that are not in flight yet.
    private var pending: [GenerationEvent] = []
    /// Text or reasoning collected after `pending`, to be merged into one event.
    private var tail = ""
    private var tailIsReasoning = false
    /// Bytes of all events that are not known to be in Redis.
    private(set) var unwrittenBytes = 0
    /// Bytes of all events in writes so far, for `SLUICE_LOG_MAX`.
    private(set) var totalBytes = 0

    /// - Parameter attempt: the attempt; the claim script has already written its `started` event.
    init(attempt: Int) {
        written = EventID(attempt: attempt, sequence: 0)
        newest = written
        logEnd = written
    }

    /// `inFlight` holds the rest of a write whose reply was lost, and must be written again.
    private var repeatDue = false

    /// Whether every event is written.
    var isEmpty: Bool { inFlight.isEmpty && !hasPending }
    /// Whether events are waiting for the next write.
    var hasPending: Bool { !pending.isEmpty || !tail.isEmpty }
    /// Whether events may be written: no reply is awaited or lost.
    var canWrite: Bool { !uncertain && !isAwaitingReply }
    /// Whether the current write waits for its reply.
    var isAwaitingReply: Bool { !inFlight.isEmpty && !uncertain && !repeatDue }
    /// Id of the entry that precedes the next event in the log; nil if it is not known.
    var previous: EventID? { inFlight.last?.id ?? logEnd }

    /// Adds an event; consecutive text is merged.
    mutating func append(_ event: GenerationEvent) {
        switch event {
        case .text(let more): append(more, isReasoning: false)
        case .reasoning(let more): append(more, isReasoning: true)
        default:
            closeTail()
            pending.append(event)
            unwrittenBytes += Self.size(of: event)
        }
    }

    private mutating func append(_ more: String, isReasoning: Bool) {
        guard !more.isEmpty else { return }
        if tailIsReasoning != isReasoning { closeTail() }
        if tail.isEmpty { unwrittenBytes += Self.eventOverhead }
        tailIsReasoning = isReasoning
        tail += more
        unwrittenBytes += more.utf8.count
    }

    /// Moves the collected text to `pending`.
    private mutating func closeTail() {
        guard !tail.isEmpty else { return }
        pending.append(tailIsReasoning ? .reasoning(tail) : .text(tail))
        tail = ""
    }

    /// Discards the pending events: no output follows an interrupt.
    mutating func dropPending() {
        closeTail()
        for event in pending { unwrittenBytes -= Self.size(of: event) }
        pending.removeAll()
    }

    /// Starts a write of the unconfirmed events of a lost one, or else of all pending events.
    /// - Returns: the events; empty when a write is in flight or nothing is pending.
    mutating func beginWrite() -> [(id: EventID, json: [UInt8])] {
        if repeatDue {
            repeatDue = false
            return inFlight
        }
        closeTail()
        guard inFlight.isEmpty, !pending.isEmpty else { return [] }
        var id = newest
        unwrittenBytes = 0
        for event in pending {
            id = id.next
            let json = LoggedEvent(id: id, event: event).json
            inFlight.append((id, json))
            unwrittenBytes += json.count
        }
        newest = id
        totalBytes += unwrittenBytes
        pending.removeAll(keepingCapacity: true)
        return inFlight
    }

    /// The current write succeeded.
    mutating func confirmWrite() {
        guard !inFlight.isEmpty else { return }
        acknowledge(inFlight.count)
        uncertain = false
    }

    /// Moves the first events of the current write to the acknowledged ones.
    private mutating func acknowledge(_ count: Int) {
        for event in inFlight.prefix(count) {
            unwrittenBytes -= event.json.count
            recent.append(event.id, event.json)
            written = event.id
            logEnd = event.id
        }
        if count == inFlight.count { inFlight.removeAll(keepingCapacity: true) } else { inFlight.removeFirst(count) }
    }

    /// The reply to the current write was lost or an error; `reconcile` must follow.
    mutating func replyLost() { uncertain = true }

    /// Compares the events with the log: after a lost or refused write, and after a reconnect. Events that the log lacks are written again by
    /// the next write. While a write waits for its reply nothing changes: it follows, and a lost one is compared again.
    /// - Parameter top: the newest id in the log; nil if there is no log.
    mutating func reconcile(newest top: EventID?) -> Comparison {
        guard !isAwaitingReply else { return .matches }
        // No attempt has a higher number.
        guard let top, top.attempt >= written.attempt, top.attempt <= Int32.max else { return .outdated }
        guard top.attempt == written.attempt else { return .superseded }
        guard top <= newest else { return .outdated }
        if top < written {
            guard restore(after: top) else { return .outdated }
        } else {
            acknowledge(inFlight.prefix { $0.id <= top }.count)
            // Events that were discarded may have been written after all.
            logEnd = top
        }
        uncertain = false
        repeatDue = !inFlight.isEmpty
        return .matches
    }

    /// Moves the acknowledged events after `top` back to the current write.
    /// - Returns: false when some of them are no longer known.
    private mutating func restore(after top: EventID) -> Bool {
        guard let missing = recent.remove(after: top) else { return false }
        unwrittenBytes += missing.reduce(0) { $0 + $1.json.count }
        inFlight.insert(contentsOf: missing, at: 0)
        written = top
        logEnd = top
        return true
    }

    /// Discards all events that are not known to be in the log. The terminal event may follow whatever the log ends with.
    mutating func discardUnwritten() {
        dropPending()
        inFlight.removeAll()
        unwrittenBytes = 0
        logEnd = nil
        uncertain = false
        repeatDue = false
    }

    /// Bytes counted per event in addition to its content, so that many small events count, too.
    private static let eventOverhead = 64

    /// Approximate size of an event in bytes.
    private static func size(of event: GenerationEvent) -> Int {
        switch event {
        case .text(let text), .reasoning(let text), .transcript(let text): eventOverhead + text.utf8.count
        case .reasoningMark(let mark): eventOverhead + mark.text.utf8.count
        case .audio(let audio): eventOverhead + audio.data.utf8.count
        case .toolCall(let call): eventOverhead + call.arguments.utf8.count + call.name.utf8.count + call.callID.utf8.count
        default: eventOverhead
        }
    }
}
