import Contract
import CoreMetrics
import JobQueue
import Logging

/// How a generation leaves this worker before its end: lost to another attempt, handed back, or with the process.
extension Generation {
    /// A newer attempt has the job, or Redis knows it no more: not a byte more is read or written.
    func lost() {
        guard !isOver else { return }
        core.logger.warning(
            "job lost to another attempt; its upstream is closed", metadata: claim.job.facts(["attempt": "\(claim.attempt)"]))
        core.metrics.leasesLost.increment()
        close()
    }

    /// Stops reading and generating; what was written stands. For a hand-back and for the end of the process.
    func close() {
        isOver = true
        closeCall()
        speech?.close()
        cancelTimers()
    }

    /// Stops generating so that another worker can go on; what is collected is written first.
    func prepareHandBack() {
        guard ending == nil, !isOver else { return }
        // The text is complete: another worker would only write it again.
        guard machine.state != .speaking else {
            speech?.fail(Failure(.workerLost, "the worker was drained while the voice still spoke"))
            return
        }
        handingBack = true
        closeCall()
        speech?.close()
        cancelTimers()
        core.mark(self)
    }

    /// Nothing is left to be written before the hand-back.
    var canBeHandedBack: Bool { handingBack && output.isEmpty && !isOver && ending == nil }
}
