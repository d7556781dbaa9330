import Contract
import JobQueue

/// Writes the events and the end of a job, one write at a time, and interprets the receipts. No I/O: commands are appended to a batch.
struct OutputWriter {
    /// The meaning of a receipt for the generation.
    enum Outcome: Equatable {
        /// The write succeeded; more output may be pending.
        case written
        /// The job has ended with the event passed to `end`.
        case ended
        /// A newer attempt owns the job, it ended elsewhere, or Redis no longer has it.
        case endedElsewhere
        /// The newest id of the log must be read and passed to `reconcile`.
        case unconfirmed
        /// The log lacks events that are no longer known here, or takes no further ones. The job must be left to a new attempt.
        case outdated
    }

    private let commands: OutputCommands
    private let entry: QueueEntry
    private let settings: QueueSettings
    private let hasAudio: Bool
    private(set) var log: OutputLog
    /// The terminal event, written last by the finish script.
    private(set) var ending: GenerationEvent?
    private var endingInFlight = false
    /// Redis has refused the events of the last write; it may be out of memory.
    private var areEventsRefused = false
    /// The finish script is not loaded in Redis and must be sent in full.
    private var finishScriptMissing = false
    /// Number of consecutive writes that were lost or refused.
    private(set) var failedWrites = 0
    /// Number of writes refused for a higher id in the log since one was known to be in it.
    private var conflicts = 0
    /// Conflicts after which the log is taken for one that no event of this attempt can be added to. A single one only shows that the reply to
    /// an earlier write was lost.
    private static let conflictsMaximum = 3
    /// Start of the last write of events, CLOCK_MONOTONIC ns; 0 before the first.
    private(set) var wroteAt: UInt64 = 0

    init(_ claim: Claim, settings: QueueSettings) {
        commands = OutputCommands(claim.job.id, entry: claim.entry, keys: settings.keys)
        entry = claim.entry
        self.settings = settings
        hasAudio = claim.job.recognition != nil
        log = OutputLog(attempt: claim.attempt)
    }

    /// Whether a write waits for its reply. What the log holds is compared after it.
    var isAwaitingReply: Bool { endingInFlight || log.isAwaitingReply }
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

    /// Appends the next write to a batch, unless one is in flight.
    /// - Parameters:
    ///   - now: CLOCK_MONOTONIC ns.
    ///   - progress: evaluated only with a terminal event.
    /// - Returns: what was appended; empty for nothing.
    mutating func write(to batch: inout OutputBatch, now: UInt64, progress: @autoclosure () -> JobProgress) -> OutputBatch.Part {
        guard !endingInFlight, log.canWrite else { return OutputBatch.Part() }
        let events = log.beginWrite()
        if !events.isEmpty { wroteAt = now }
        var end: OutputCommands.Ending?
        // A repeated write contains only the events of the lost one. Events that are pending behind it must precede the terminal event.
        if let ending, !log.hasPending {
            end = OutputCommands.Ending(
                event: LoggedEvent(id: log.newest.next, event: ending), previous: log.previous, progress: progress())
            end?.hasAudio = hasAudio
            endingInFlight = true
        }
        return batch.append(events, ending: end, sendsScript: finishScriptMissing, to: commands, entry: entry, settings: settings)
    }

    /// Interprets the receipt of one write.
    mutating func received(_ receipt: OutputReceipt) -> Outcome {
        endingInFlight = false
        if receipt.hasHigherID { conflicts += 1 }
        switch receipt.events {
        case .none: break
        case .written:
            log.confirmWrite()
            failedWrites = 0
            conflicts = 0
            areEventsRefused = false
        case .refused:
            areEventsRefused = true
            return replyLost()
        }
        switch receipt.ending {
        case .none: return .written
        case .ended: return .ended
        case .endedElsewhere: return .endedElsewhere
        case .scriptMissing:
            finishScriptMissing = true
            return .written
        case .refused: return replyLost()
        }
    }

    /// Records a lost or refused write: its events may or may not be in the log.
    mutating func replyLost() -> Outcome {
        endingInFlight = false
        log.replyLost()
        failedWrites += 1
        return .unconfirmed
    }

    /// Whether the id is that of the terminal event, so that the job has ended with it.
    func isEnding(_ id: EventID?) -> Bool { ending != nil && id == log.newest.next }

    /// Compares the events with the log, after a lost or refused write or a reconnect.
    /// - Parameter newest: the newest id in the log; nil if there is no log.
    mutating func reconcile(newest: EventID?) -> Outcome {
        if isEnding(newest) { return .ended }
        let written = log.written
        var comparison = log.reconcile(newest: newest)
        if log.written != written { conflicts = 0 }
        if comparison == .matches, conflicts >= Self.conflictsMaximum { comparison = .outdated }
        switch comparison {
        case .superseded: return .endedElsewhere
        case .outdated where !endsWithoutOutput: return .outdated
        case .matches where !(endsWithoutOutput && areEventsRefused): return .written
        case .outdated, .matches:
            // The end of an interrupted or failed job must not wait for output that Redis does not take or no longer has.
            log.discardUnwritten()
            return .written
        }
    }

    /// Whether the terminal event may follow an incomplete log: only `finished` promises that the log is complete.
    private var endsWithoutOutput: Bool {
        switch ending {
        case .interrupted, .failed: true
        default: false
        }
    }

    /// Discards everything that is not in the log, and the terminal event: a new attempt replaces this one.
    mutating func abandon() {
        log.discardUnwritten()
        ending = nil
        endingInFlight = false
    }
}
