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

    /// Id of the newest event known to be in Redis.
    private(set) var written: EventID
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
    init(attempt: Int) { written = EventID(attempt: attempt, sequence: 0) }

    /// `inFlight` holds the rest of a write whose reply was lost, and must be written again.
    private var repeatDue = false

    /// Whether every event is written.
    var isEmpty: Bool { inFlight.isEmpty && !hasPending }
    /// Whether events are waiting for the next write.
    var hasPending: Bool { !pending.isEmpty || !tail.isEmpty }
    /// Whether no write is waiting for its reply.
    var canWrite: Bool { !uncertain && (inFlight.isEmpty || repeatDue) }
    /// Id of the newest event that was given one.
    var newest: EventID { inFlight.last?.id ?? written }

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
        var id = written
        unwrittenBytes = 0
        for event in pending {
            id = id.next
            let json = LoggedEvent(id: id, event: event).json
            inFlight.append((id, json))
            unwrittenBytes += json.count
        }
        totalBytes += unwrittenBytes
        pending.removeAll(keepingCapacity: true)
        return inFlight
    }

    /// The current write succeeded.
    mutating func confirmWrite() {
        guard let last = inFlight.last else { return }
        for event in inFlight { unwrittenBytes -= event.json.count }
        written = last.id
        inFlight.removeAll(keepingCapacity: true)
        uncertain = false
    }

    /// The reply to the current write was lost or an error; `reconcile` must follow.
    mutating func replyLost() { uncertain = true }

    /// Compares a lost or refused write with the log.
    /// - Parameter top: the newest id in the log; nil if there is no log.
    /// - Returns: false when the log belongs to a newer attempt or no longer exists.
    mutating func reconcile(newest top: EventID?) -> Bool {
        guard let top, top.attempt == written.attempt, top >= written else { return false }
        let confirmed = inFlight.prefix { $0.id <= top }
        for event in confirmed { unwrittenBytes -= event.json.count }
        written = confirmed.last?.id ?? written
        inFlight.removeFirst(confirmed.count)
        uncertain = false
        repeatDue = !inFlight.isEmpty
        return true
    }

    /// Bytes counted per event in addition to its content, so that many small events count, too.
    private static let eventOverhead = 64

    /// Approximate size of an event in bytes.
    private static func size(of event: GenerationEvent) -> Int {
        switch event {
        case .text(let text), .reasoning(let text): eventOverhead + text.utf8.count
        case .audio(let audio): eventOverhead + audio.data.utf8.count
        case .toolCall(let call): eventOverhead + call.arguments.utf8.count + call.name.utf8.count + call.callID.utf8.count
        default: eventOverhead
        }
    }
}
