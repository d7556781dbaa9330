import Contract
import JobQueue
import RedisClient

/// What a generation writes: its events and its end, one write at a time, and what Redis' answers to them mean. No I/O.
struct OutputWriter {
    /// What was added to a batch of commands, with the number of replies that it brings.
    enum Part {
        case events(Int)
        case eventsAndEnding(Int)
        case nothing
    }

    /// What an answer means for the generation.
    enum Outcome: Equatable {
        /// All is well; more may be due.
        case written
        /// The job has ended with what was given to `end`.
        case ended
        /// A newer attempt has the job, somebody else ended it, or Redis knows it no more.
        case endedElsewhere
        /// What of the write is in the log must be asked for, then `settled` called.
        case unsettled
    }

    private let commands: OutputCommands
    private let entry: QueueEntry
    private let settings: QueueSettings
    private(set) var log: OutputLog
    /// Written last, by the finish script.
    private(set) var ending: GenerationEvent?
    private var endingInFlight = false
    /// Redis does not know the finish script: send it whole.
    private var finishScriptMissing = false
    /// Writes in a row that were lost or refused.
    private(set) var troubles = 0
    /// When the newest write of events began, CLOCK_MONOTONIC ns; 0 before the first.
    private(set) var wroteAt: UInt64 = 0

    init(_ claim: Claim, settings: QueueSettings) {
        commands = OutputCommands(claim.job.id, entry: claim.entry, keys: settings.keys)
        entry = claim.entry
        self.settings = settings
        log = OutputLog(attempt: claim.attempt)
    }

    /// All that was appended is in Redis.
    var isEmpty: Bool { log.isEmpty }
    var unwrittenBytes: Int { log.unwrittenBytes }
    /// Bytes of all events so far, written or not.
    var bytes: Int { log.totalBytes + log.unwrittenBytes }

    mutating func append(_ event: GenerationEvent) { log.append(event) }

    /// The job's last event; nothing is appended after it.
    mutating func end(_ event: GenerationEvent) { ending = event }

    /// Nobody shall see what was collected and not yet sent.
    mutating func dropPending() { log.dropPending() }

    /// Appends what is due. One write is under way at a time.
    /// - Parameter now: CLOCK_MONOTONIC, ns.
    mutating func write(to pipeline: inout RedisPipeline, now: UInt64, progress: @autoclosure () -> JobProgress) -> Part {
        guard !endingInFlight, log.canWrite else { return .nothing }
        let events = log.beginWrite()
        var count = 0
        if !events.isEmpty {
            wroteAt = now
            count = commands.append(events, to: &pipeline)
        }
        // A repeated write carries only what the lost one did: what was collected meanwhile goes before the end.
        guard let ending, !log.hasPending else { return count == 0 ? .nothing : .events(count) }
        let end = OutputCommands.Ending(
            event: LoggedEvent(id: log.newest.next, event: ending), previous: log.newest, progress: progress())
        commands.append(end, entry: entry, settings: settings, loaded: !finishScriptMissing, to: &pipeline)
        endingInFlight = true
        count += 1
        return .eventsAndEnding(count)
    }

    /// The answers to what `write` appended, in order.
    mutating func answered(_ part: Part, _ replies: ArraySlice<RESPValue>) -> Outcome {
        var events = replies
        var finish: RESPValue?
        if case .eventsAndEnding = part {
            endingInFlight = false
            finish = events.popLast()
        }
        if !events.isEmpty {
            // The last of the rest is the PUBLISH's. A refusal: a newer attempt has written, the log is gone, or Redis takes no writes now
            // (no memory, read only).
            guard !events.dropLast().contains(where: \.isRefusal) else { return lost() }
            log.wrote()
            troubles = 0
        }
        switch finish {
        case .integer(1): return .ended
        case .integer(0): return .endedElsewhere
        case .error(let message) where message.hasPrefix("NOSCRIPT"):
            finishScriptMissing = true
            return .written
        case .error, .integer: return lost()
        default: return .written
        }
    }

    /// A write was refused, or its answer was lost: what was in flight may be in the log or not.
    mutating func lost() -> Outcome {
        endingInFlight = false
        log.lostAnswer()
        troubles += 1
        return .unsettled
    }

    /// - Parameter newest: the newest id in the log.
    mutating func settled(newest: EventID?) -> Outcome {
        // The ending itself got through, with all before it, and only its answer was lost.
        if let newest, ending != nil, newest == log.newest.next { return .ended }
        return log.settle(newest: newest) ? .written : .endedElsewhere
    }
}

extension RESPValue {
    /// An error, or the null of an XADD to a log that is not there.
    fileprivate var isRefusal: Bool { if case .error = self { true } else { isNull } }
}
