import Contract
import JobQueue
import Logging
import RedisClient
import Upstream

/// From what was collected to what Redis has. `OutputWriter` knows what is due and what an answer means.
extension Generation {
    /// A first token, or an end: somebody waits for it.
    var isUrgent: Bool { output.wroteAt == 0 || ending != nil || handingBack }

    /// When what was collected may be written, if writes of one generation begin at least `interval` (ns) apart.
    func writeIsDue(interval: UInt64) -> UInt64 { isUrgent ? 0 : output.wroteAt + interval }

    /// Appends what is due.
    func write(to pipeline: inout RedisPipeline) -> OutputWriter.Part {
        guard !isOver else { return .nothing }
        let hadPending = output.log.hasPending
        let part = output.write(to: &pipeline, now: core.loop.now, progress: progress)
        if hadPending, !output.log.hasPending { deliveredTokens = machine.usage.completionTokens }
        return part
    }

    /// The answers to what `write` appended, in order.
    func answered(_ part: OutputWriter.Part, _ replies: ArraySlice<RESPValue>) {
        guard !isOver else { return }
        let outcome = output.answered(part, replies)
        if outcome == .unsettled {
            core.logger.debug("a write to the log was refused", metadata: claim.job.facts(["replies": "\(replies.prefix(4))"]))
        }
        goOn(outcome)
    }

    /// The connection broke, or took too long.
    func answerLost() {
        guard !isOver else { return }
        goOn(output.lost())
    }

    /// What the log's newest id is.
    func settled(newest: EventID?) {
        settling = false
        guard !isOver else { return }
        goOn(output.settled(newest: newest))
    }

    private func goOn(_ outcome: OutputWriter.Outcome) {
        switch outcome {
        case .written:
            if output.unwrittenBytes < OutputLog.lowWater { readOn() }
            if !output.isEmpty || ending != nil || canBeHandedBack { core.mark(self) }
        case .ended:
            isOver = true
            core.finished(self)
        case .endedElsewhere: core.endedElsewhere(self)
        case .unsettled: core.settle(self)
        }
    }

    private func readOn() {
        speech?.resume()
        guard !reading else { return }
        reading = true
        // The silence so far was ours.
        times.resumed(at: core.loop.now)
        startTimer()
        call?.resumeReading()
    }
}
