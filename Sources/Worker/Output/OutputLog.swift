import Contract
import JobQueue

/// A job's output on its way into the log: what is collected, what is being written, what is safe. No I/O.
///
/// Group commit: while a write is under way everything collects behind it, consecutive text as one event. So alone a token costs no wait,
/// and when Redis is slow the number of commands per token falls by itself. Ids are given when a write begins and never change: a repeated
/// write means the same.
struct OutputLog {
    /// Unwritten bytes beyond which the upstream is no longer read.
    static let highWater = 256 << 10
    static let lowWater = 64 << 10

    /// The newest event that Redis has.
    private(set) var written: EventID
    private(set) var inFlight: [(id: EventID, json: [UInt8])] = []
    /// Redis' answer to what is in flight was lost: it may be there or not.
    private(set) var uncertain = false
    private var pending: [GenerationEvent] = []
    /// What is collected behind `pending`: consecutive text, or consecutive reasoning.
    private var tail = ""
    private var tailIsReasoning = false
    private(set) var unwrittenBytes = 0
    /// All bytes of events so far, for `SLUICE_LOG_MAX`.
    private(set) var totalBytes = 0

    /// - Parameter attempt: its `started` is there already, from the claim.
    init(attempt: Int) { written = EventID(attempt: attempt, sequence: 0) }

    /// What is left of a write after its answer was lost and the log was looked at.
    private var repeatDue = false

    var isEmpty: Bool { inFlight.isEmpty && !hasPending }
    /// Something is collected that no write has carried yet.
    var hasPending: Bool { !pending.isEmpty || !tail.isEmpty }
    /// No write is under way whose answer is still to come.
    var canWrite: Bool { !uncertain && (inFlight.isEmpty || repeatDue) }
    /// The event that the next one follows.
    var newest: EventID { inFlight.last?.id ?? written }

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

    private mutating func closeTail() {
        guard !tail.isEmpty else { return }
        pending.append(tailIsReasoning ? .reasoning(tail) : .text(tail))
        tail = ""
    }

    /// Nothing that was collected and not yet sent is wanted any more (after an interrupt nobody shall see further tokens).
    mutating func dropPending() {
        closeTail()
        for event in pending { unwrittenBytes -= Self.size(of: event) }
        pending.removeAll()
    }

    /// Begins a write: of what a lost write left over, else of all that is collected. Empty when one is under way or there is nothing to
    /// write.
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

    /// Redis has all that was in flight.
    mutating func wrote() {
        guard let last = inFlight.last else { return }
        for event in inFlight { unwrittenBytes -= event.json.count }
        written = last.id
        inFlight.removeAll(keepingCapacity: true)
        uncertain = false
    }

    mutating func lostAnswer() { uncertain = true }

    /// What the log's newest id says about a write whose answer was lost or an error.
    /// - Returns: false when the log belongs to a newer attempt, or is gone.
    mutating func settle(newest top: EventID?) -> Bool {
        guard let top, top.attempt == written.attempt, top >= written else { return false }
        let safe = inFlight.prefix { $0.id <= top }
        for event in safe { unwrittenBytes -= event.json.count }
        written = safe.last?.id ?? written
        inFlight.removeFirst(safe.count)
        uncertain = false
        repeatDue = !inFlight.isEmpty
        return true
    }

    /// Bytes that each event costs beside its content: a great number of small ones counts, too.
    private static let eventOverhead = 64

    private static func size(of event: GenerationEvent) -> Int {
        switch event {
        case .text(let text), .reasoning(let text): eventOverhead + text.utf8.count
        case .audio(let audio): eventOverhead + audio.data.utf8.count
        case .toolCall(let call): eventOverhead + call.arguments.utf8.count + call.name.utf8.count + call.callID.utf8.count
        default: eventOverhead
        }
    }
}
