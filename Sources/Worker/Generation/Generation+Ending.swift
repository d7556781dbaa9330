import Contract
import CoreMetrics
import CurlTransport
import JobQueue
import Logging
import Upstream

/// Stopping a job: interrupted, ended, handed back, lost to another attempt, or abandoned at the end of the process.
extension Generation {
    /// Closes the upstream connection and ends the job as interrupted.
    /// - Parameters:
    ///   - receivedAt: when this process received the interrupt, CLOCK_MONOTONIC ns.
    ///   - closedAt: when another thread closed the upstream's connection before this call; nil if it did not.
    func interrupted(_ interrupt: Interrupt, receivedAt: UInt64, closedAt: UInt64? = nil) {
        guard isLive else { return }
        let phase = machine.phase
        let hadCall = call != nil || preparation?.isCalling == true
        preparation?.close()
        closeCall()
        let hadSpeech = speech != nil
        speech?.close()
        // Speech connections are closed here, after the connection of the text.
        let latency = Int(((hadSpeech ? nil : closedAt) ?? context.loop.now) &- receivedAt) / 1_000
        let maximum = claim.job.maximumTokens
        let action = machine.interrupted(
            interrupt, latencyMicroseconds: latency, delivered: machine.deliveredTokens, maximum: maximum,
            billing: billing(hadCall: hadCall))
        guard let action else { return }
        // No output follows an interrupt; the usage still includes the generated tokens.
        output.dropPending()
        context.metrics.interrupted(phase: phase, hadCall: hadCall, microseconds: latency, usage: usage, maximum: maximum)
        context.logger.info(
            hadCall ? "interrupt closed upstream" : "interrupt ended job",
            metadata: claim.job.logMetadata(["phase": "\(phase.rawValue)", "latency_us": "\(latency)", "reason": "\(interrupt.reason)"]))
        perform(action)
    }

    /// Whether the cost of a job that is interrupted now is known.
    private func billing(hadCall: Bool) -> Usage.Billing {
        guard machine.isBillable else { return .exact }
        let abort = candidates.indices.contains(machine.upstream) ? candidates[machine.upstream].upstream.abort : .unknown
        if hadCall, machine.phase != .speaking, abort == .continues { return .continues }
        return !usage.estimated && (!hadCall || machine.phase == .speaking || abort == .stops) ? .exact : .estimated
    }

    /// Closes all connections and writes the terminal event.
    func end(_ event: GenerationEvent) {
        closeCall()
        speech?.close()
        preparation?.close()
        cancelTimers()
        releaseAllLimits()
        stage = .ending
        output.end(event)
        request(.write(tokens: 0))
    }

    /// Closes the upstream connection before it returns, and cancels a pending back-off.
    func closeCall() {
        call?.cancel()
        call = nil
        releasePass()
        isReading = true
        if let backoffTimer { context.loop.cancel(backoffTimer) }
        backoffTimer = nil
    }

    /// Returns the permission of the current request, and leaves the lines of all upstreams.
    func releasePass() {
        if let pass { context.gate.release(pass, at: context.loop.now) }
        pass = nil
        releaseUpstreamLimits()
    }

    // MARK: stopping without an end

    /// Stops at once because a newer attempt owns the job, or Redis no longer has it. Nothing more is read or written.
    func ownershipLost() {
        guard stage != .over else { return }
        context.logger.warning(
            "job lost to another attempt; its upstream is closed", metadata: claim.job.logMetadata(["attempt": "\(claim.attempt)"]))
        context.metrics.leasesLost.increment()
        close()
    }

    /// Stops the upstream, the speech and all timers, for a hand-back or the end of the process. Output already written remains in the
    /// log.
    func close() {
        stage = .over
        closeCall()
        speech?.close()
        preparation?.close()
        cancelTimers()
        releaseAllLimits()
    }

    /// Stops generating so that another worker can continue. Collected output is written before the hand-back.
    func prepareHandBack() {
        guard isLive else { return }
        // With a complete text only the speech is cut short: a hand-back would generate the text again.
        guard machine.state != .speaking else {
            speech?.fail(Failure(.workerLost, "the worker was drained before the speech was complete"))
            return
        }
        stage = .handingBack
        closeCall()
        releaseAllLimits()
        speech?.close()
        preparation?.close()
        cancelTimers()
        request(.write(tokens: 0))
    }

    /// Whether all collected output is written and the hand-back may be sent.
    var canBeHandedBack: Bool { stage == .handingBack && output.isEmpty }
}
