import CoreMetrics
import JobQueue
import Logging

/// Passes the signals that every worker receives on: an interrupt to the claim in progress or to the running job, whose connection is closed
/// before `received` returns.
struct InterruptListener: Sendable {
    let claimer: Claimer
    let pool: GenerationPool
    let renewer: LeaseRenewer
    let metrics: WorkerMetrics
    let logger: Logger

    /// Handles a signal. Must be called on the claimer's event loop, synchronously with its arrival: so no claim can end between the two
    /// steps, and the interrupt reaches the job in one of them.
    func received(_ signal: WorkerSignal) {
        switch signal {
        case .interrupt(let interrupt, let receivedAt):
            if claimer.keepInterrupt(interrupt) { return }
            pool.interrupt(interrupt, receivedAt: receivedAt)
        case .invalidInterrupt(let bytes):
            metrics.cancelIgnored.increment()
            logger.warning("ignored a message on the cancel channel that is not an interrupt", metadata: ["bytes": "\(bytes)"])
        case .interruptsSubscribed: Task { await renewer.renew() }
        case .jobsReturned(let partition): Task { await claimer.takeOver([partition]) }
        case .limitChanged(let holder): pool.limitChanged(holder)
        case .operatorCommands: Task { await renewer.pollOperatorCommands() }
        }
    }
}
