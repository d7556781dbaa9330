import Contract
import CurlTransport
import JobQueue
import Logging
import Upstream

/// Writing collected output to Redis. `OutputWriter` decides what is written and interprets the receipts.
extension Generation: ScheduledOutput {
    /// Whether the next write is latency-critical: the first one, a terminal event or a hand-back.
    var isUrgent: Bool { output.wroteAt == 0 || stage != .running }

    /// Appends the next write to a batch. Requests the hand-back when nothing is left to write before it.
    /// - Parameter now: CLOCK_MONOTONIC ns.
    /// - Returns: what was appended; empty when a write is in flight, nothing is collected or the job is over.
    func write(to batch: inout OutputBatch, now: UInt64) -> OutputBatch.Part {
        guard stage != .over else { return OutputBatch.Part() }
        let hadPending = output.log.hasPending
        let part = output.write(to: &batch, now: now, progress: progress)
        if hadPending, !output.log.hasPending { machine.writeBegins() }
        if part.isEmpty, canBeHandedBack { request(.handBack) }
        return part
    }

    /// Processes the receipt of one write.
    func received(_ receipt: OutputReceipt) {
        guard stage != .over else { return }
        let outcome = output.received(receipt)
        if outcome == .unconfirmed {
            context.logger.debug("event log write rejected by Redis", metadata: claim.job.logMetadata(["replies": "\(receipt.replies)"]))
        }
        proceed(outcome)
    }

    /// Processes a lost reply: the connection broke or timed out.
    func replyLost() {
        guard stage != .over else { return }
        proceed(output.replyLost())
    }

    /// Processes what Redis holds of the job, read after a lost or refused write or a reconnect.
    /// - Parameters:
    ///   - newest: the newest id in the log; nil if there is no log.
    ///   - connection: the number of the connection before the log was read.
    func validated(newest: EventID?, on connection: Int) {
        guard stage != .over, !output.isAwaitingReply else { return }
        self.connection = connection
        proceed(output.reconcile(newest: newest))
    }

    /// Processes what Redis holds of the job, read by a renewal of its lease.
    /// - Parameters:
    ///   - newest: the newest id in the log; nil if there is no log.
    ///   - connection: the number of the connection of the renewal.
    func renewed(newest: EventID?, written: EventID, on connection: Int) {
        guard stage != .over, self.connection != connection, !output.isAwaitingReply else { return }
        self.connection = connection
        // A write whose reply was lost is compared by itself.
        guard !output.log.uncertain else { return }
        if newest.map({ $0 >= written }) == true {
            if !output.isEmpty || output.ending != nil || canBeHandedBack { request(.write(tokens: 0)) }
        } else {
            proceed(output.reconcile(newest: newest))
        }
    }

    /// Writes the end of the job again, which Redis has lost.
    func reopen(newest: EventID?) {
        stage = .ending
        isValidating = false
        proceed(output.reconcile(newest: newest))
    }

    /// Leaves the job to a new attempt, whose readers start again: the log lacks events that they were shown, or takes no further ones.
    private func giveUp() {
        context.logger.warning(
            "the log of a job lacks output or takes no more; the job starts again",
            metadata: claim.job.logMetadata(["attempt": "\(claim.attempt)"]))
        stage = .handingBack
        hasLostOutput = true
        closeCall()
        releaseAllLimits()
        speech?.close()
        preparation?.close()
        cancelTimers()
        output.abandon()
        request(.handBack)
    }

    /// Continues after a write.
    private func proceed(_ outcome: OutputWriter.Outcome) {
        switch outcome {
        case .written:
            if output.unwrittenBytes < OutputLog.lowWater { resumeReading() }
            if !output.isEmpty || stage == .ending || canBeHandedBack { request(.write(tokens: 0)) }
        case .ended:
            stage = .over
            request(.removeEnded)
        case .endedElsewhere: request(.removeLost)
        case .unconfirmed: request(.validate)
        case .outdated: giveUp()
        }
    }
}
