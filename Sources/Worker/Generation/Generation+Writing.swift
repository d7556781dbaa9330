import Contract
import CurlTransport
import JobQueue
import Logging
import RedisClient
import Upstream

/// Writing collected output to Redis. `OutputWriter` decides what is written and interprets the replies.
extension Generation {
    /// Whether the next write is latency-critical: the first one, a terminal event or a hand-back.
    var isUrgent: Bool { output.wroteAt == 0 || ending != nil || handingBack }

    /// The earliest time of the next write, CLOCK_MONOTONIC ns; 0 for an urgent one.
    /// - Parameter interval: minimum time between two writes of one generation, in ns.
    func writeIsDue(interval: UInt64) -> UInt64 { isUrgent ? 0 : output.wroteAt + interval }

    /// Appends the commands of the next write.
    /// - Returns: what was appended.
    func write(to pipeline: inout RedisPipeline) -> OutputWriter.Part {
        guard !isOver else { return .nothing }
        let hadPending = output.log.hasPending
        let part = output.write(to: &pipeline, now: core.loop.now, progress: progress)
        if hadPending, !output.log.hasPending { deliveredTokens = machine.usage.completionTokens }
        return part
    }

    /// Processes the replies to the commands of one write, in order.
    func answered(_ part: OutputWriter.Part, _ replies: ArraySlice<RESPValue>) {
        guard !isOver else { return }
        let outcome = output.answered(part, replies)
        if outcome == .unsettled {
            core.logger.debug("write to the event log refused", metadata: claim.job.logMetadata(["replies": "\(replies.prefix(4))"]))
        }
        proceed(outcome)
    }

    /// Processes a lost reply: the connection broke or timed out.
    func answerLost() {
        guard !isOver else { return }
        proceed(output.lost())
    }

    /// Processes the newest id of the event log after a lost or refused write; nil: the log does not exist.
    func settled(newest: EventID?) {
        settling = false
        guard !isOver else { return }
        proceed(output.settled(newest: newest))
    }

    /// Continues after a write.
    private func proceed(_ outcome: OutputWriter.Outcome) {
        switch outcome {
        case .written:
            if output.unwrittenBytes < OutputLog.lowWater { resumeReading() }
            if !output.isEmpty || ending != nil || canBeHandedBack { core.mark(self) }
        case .ended:
            isOver = true
            core.finished(self)
        case .endedElsewhere: core.endedElsewhere(self)
        case .unsettled: core.settle(self)
        }
    }

    /// Resumes reading from the upstream after back pressure.
    private func resumeReading() {
        speech?.resume()
        guard !reading else { return }
        reading = true
        // The idle time while reading was paused does not count.
        times.resumed(at: core.loop.now)
        startTimer()
        call?.resumeReading()
    }
}
