import Contract
import JobQueue
import Logging
import NIOCore

/// Sending of interrupts: from a client's INTERRUPT to the interrupt key in Redis.
extension SessionRegistry {
    /// How long a client's acknowledgement waits for Redis, and how long storing the interrupt key is retried after that.
    private static let acknowledgement = RetryPolicy.seconds(10)
    private static let storing = RetryPolicy.seconds(600)
    /// Charged to the session's account for each call to Redis, bytes.
    private static let callCost = 4 << 10

    /// Interrupts a request's job. While the job is being submitted, the interrupt waits for the reply.
    /// A request has at most one interrupt in flight; callers share its answer.
    /// - Parameter then: called on the event loop once Redis has stored the interrupt key or found the job ended; with nil when Redis did
    ///   not answer in time (storing the key is retried in the background) or the job was never submitted.
    func interrupt(_ request: RunningRequest, in session: Session, reason: String, then: @escaping (InterruptAnswer?) -> Void = { _ in }) {
        request.interruptedAt = request.interruptedAt ?? .now()
        guard request.state != .submitting else {
            // Redis may not have the job yet; the interrupt is sent when the submission is answered.
            request.delayedInterrupts.append((reason, then))
            return
        }
        request.interruptCompletions.append(then)
        guard request.interruptCompletions.count == 1 else { return }
        session.account.charge(Self.callCost)
        // Sent now: a task begins in the loop's next turn.
        let sent = SentInterrupt(request.jobID, reason: reason, owner: session.owner, by: context.queue)
        context.backgroundTasks.startOnLoop { [self] in
            let answer = await store(Self.acknowledgement, request, session, reason, sent: sent)
            GatewayMetrics.interrupted(answer)
            log(answer, request, reason)
            let completions = request.interruptCompletions
            request.interruptCompletions = []
            let mustRetry = answer == nil && !request.isRetryingInterrupt
            if mustRetry { request.isRetryingInterrupt = true }
            for completion in completions { completion(answer) }
            guard mustRetry else { return }
            _ = await store(Self.storing, request, session, reason)
            request.isRetryingInterrupt = false
        }
    }

    /// Stores the interrupt key; nil when Redis did not answer in time.
    /// - Parameter sent: the first attempt, if it was sent already.
    private func store(
        _ retry: RetryPolicy, _ request: RunningRequest, _ session: Session, _ reason: String, sent: SentInterrupt? = nil
    ) async -> InterruptAnswer? {
        var sent = sent
        return await retry.run { () async throws(QueueError) in
            if let first = sent {
                sent = nil
                return try await first.answer()
            }
            return try await context.queue.forceInterrupt(request.jobID, reason: reason, owner: session.owner)
        }
    }

    private func log(_ answer: InterruptAnswer?, _ request: RunningRequest, _ reason: String) {
        var metadata = Logger.Metadata.job(request.jobID, traceparent: request.traceparent)
        metadata["reason"] = "\(reason)"
        guard let answer else { return context.logger.warning("interrupt not stored yet; retrying", metadata: metadata) }
        metadata["state"] = "\(answer.state?.rawValue ?? "unknown")"
        metadata["stored"] = "\(answer.stored)"
        context.logger.info("interrupt sent", metadata: metadata)
    }

    /// Sends the interrupts that waited for the submission, once Redis has the job or the job has ended.
    func sendDelayedInterrupts(_ request: RunningRequest, in session: Session) {
        let delayed = request.delayedInterrupts
        request.delayedInterrupts = []
        for (reason, then) in delayed { interrupt(request, in: session, reason: reason, then: then) }
    }

    /// Answers the delayed interrupts without sending them, because the job was never submitted or has ended.
    func answerDelayedInterrupts(_ request: RunningRequest, _ answer: InterruptAnswer?) {
        let delayed = request.delayedInterrupts
        request.delayedInterrupts = []
        for entry in delayed { entry.then(answer) }
    }
}
