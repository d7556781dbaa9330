import Contract
import JobQueue
import RedisClient

/// Writes the events and the end of a job, one write at a time, and interprets the replies. No I/O: commands are appended to a pipeline.
struct OutputWriter {
    /// What a write appended to the pipeline, with its number of replies.
    enum Part {
        case events(Int)
        case eventsAndEnding(Int)
        case nothing
    }

    /// The meaning of a reply for the generation.
    enum Outcome: Equatable {
        /// The write succeeded; more output may be pending.
        case written
        /// The job has ended with the event passed to `end`.
        case ended
        /// A newer attempt owns the job, it ended elsewhere, or Redis no longer has it.
        case endedElsewhere
        /// The newest id of the log must be read and passed to `settled`.
        case unsettled
    }

    private let commands: OutputCommands
    private let entry: QueueEntry
    private let settings: QueueSettings
    private(set) var log: OutputLog
    /// The terminal event, written last by the finish script.
    private(set) var ending: GenerationEvent?
    private var endingInFlight = false
    /// The finish script is not loaded in Redis and must be sent in full.
    private var finishScriptMissing = false
    /// Number of consecutive writes that were lost or refused.
    private(set) var troubles = 0
    /// Start of the last write of events, CLOCK_MONOTONIC ns; 0 before the first.
    private(set) var wroteAt: UInt64 = 0

    init(_ claim: Claim, settings: QueueSettings) {
        commands = OutputCommands(claim.job.id, entry: claim.entry, keys: settings.keys)
        entry = claim.entry
        self.settings = settings
        log = OutputLog(attempt: claim.attempt)
    }

    /// Whether all appended events are in Redis.
    var isEmpty: Bool { log.isEmpty }
    var unwrittenBytes: Int { log.unwrittenBytes }
    /// Bytes of all events so far, written or not.
    var bytes: Int { log.totalBytes + log.unwrittenBytes }

    /// Adds an event to the next write.
    mutating func append(_ event: GenerationEvent) { log.append(event) }

    /// Sets the terminal event; nothing may be appended after it.
    mutating func end(_ event: GenerationEvent) { ending = event }

    /// Discards events that were not sent yet.
    mutating func dropPending() { log.dropPending() }

    /// Appends the commands of the next write, unless one is in flight.
    /// - Parameters:
    ///   - now: CLOCK_MONOTONIC ns.
    ///   - progress: evaluated only with a terminal event.
    mutating func write(to pipeline: inout RedisPipeline, now: UInt64, progress: @autoclosure () -> JobProgress) -> Part {
        guard !endingInFlight, log.canWrite else { return .nothing }
        let events = log.beginWrite()
        var count = 0
        if !events.isEmpty {
            wroteAt = now
            count = commands.append(events, to: &pipeline)
        }
        // A repeated write contains only the events of the lost one. Events that are pending behind it must precede the terminal event.
        guard let ending, !log.hasPending else { return count == 0 ? .nothing : .events(count) }
        let end = OutputCommands.Ending(
            event: LoggedEvent(id: log.newest.next, event: ending), previous: log.newest, progress: progress())
        commands.append(end, entry: entry, settings: settings, loaded: !finishScriptMissing, to: &pipeline)
        endingInFlight = true
        count += 1
        return .eventsAndEnding(count)
    }

    /// Interprets the replies to the commands of one write, in order.
    mutating func answered(_ part: Part, _ replies: ArraySlice<RESPValue>) -> Outcome {
        var events = replies
        var finish: RESPValue?
        if case .eventsAndEnding = part {
            endingInFlight = false
            finish = events.popLast()
        }
        if !events.isEmpty {
            // The last of these replies belongs to PUBLISH. An error means that a newer attempt has written, the log no longer exists, or
            // Redis rejects writes (out of memory, read-only).
            guard !events.dropLast().contains(where: \.isRefusal) else { return lost() }
            log.wrote()
            troubles = 0
        }
        switch finish {
        case .integer(1): return .ended
        case .integer(0): return .endedElsewhere
        case let reply? where reply.isScriptMissing:
            finishScriptMissing = true
            return .written
        case .error, .integer: return lost()
        default: return .written
        }
    }

    /// Records a lost or refused write: its events may or may not be in the log.
    mutating func lost() -> Outcome {
        endingInFlight = false
        log.lostAnswer()
        troubles += 1
        return .unsettled
    }

    /// Compares a lost or refused write with the log.
    /// - Parameter newest: the newest id in the log; nil if there is no log.
    mutating func settled(newest: EventID?) -> Outcome {
        // The terminal event is in the log, so only the reply was lost.
        if let newest, ending != nil, newest == log.newest.next { return .ended }
        return log.settle(newest: newest) ? .written : .endedElsewhere
    }
}

extension RESPValue {
    /// Whether the reply is an error, or the null of an XADD to a missing log.
    fileprivate var isRefusal: Bool { if case .error = self { true } else { isNull } }
}
