import Contract
import CoreMetrics
import JobQueue
import Logging

/// Stopping a generation without ending its job: lost to another attempt, handed back, or at the end of the process.
extension Generation {
    /// Stops at once because a newer attempt owns the job, or Redis no longer has it. Nothing more is read or written.
    func lost() {
        guard !isOver else { return }
        core.logger.warning(
            "job lost to another attempt; its upstream is closed", metadata: claim.job.logMetadata(["attempt": "\(claim.attempt)"]))
        core.metrics.leasesLost.increment()
        close()
    }

    /// Stops the upstream, the speech and all timers, for a hand-back or the end of the process. Output already written remains in the
    /// log.
    func close() {
        isOver = true
        closeCall()
        speech?.close()
        cancelTimers()
    }

    /// Stops generating so that another worker can continue. Collected output is written before the hand-back.
    func prepareHandBack() {
        guard ending == nil, !isOver else { return }
        // With a complete text only the speech is cut short: a hand-back would generate the text again.
        guard machine.state != .speaking else {
            speech?.fail(Failure(.workerLost, "the worker was drained before the speech was complete"))
            return
        }
        handingBack = true
        closeCall()
        speech?.close()
        cancelTimers()
        core.mark(self)
    }

    /// Whether all collected output is written and the hand-back may be sent.
    var canBeHandedBack: Bool { handingBack && output.isEmpty && !isOver && ending == nil }
}
