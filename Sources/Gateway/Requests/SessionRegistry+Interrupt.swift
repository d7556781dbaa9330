import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// The reply of Redis to an interrupt.
struct InterruptResult: Sendable, Equatable {
    /// State of the job before the interrupt; nil when the job does not exist.
    var state: JobState?
    /// Whether the interrupt key was stored, which it is for jobs that have not ended.
    var stored: Bool
}

/// Sending of interrupts: from a client's INTERRUPT to the interrupt key in Redis.
extension SessionRegistry {
    /// How long a client's acknowledgement waits for Redis, and how long storing the interrupt key is retried after that.
    private static let answerPatience = RetryPolicy.seconds(10)
    private static let intentPatience = RetryPolicy.seconds(600)
    /// Charged to the session's account for each call to Redis, bytes.
    private static let callCost = 4 << 10

    /// Interrupts a request's job. While the job is being submitted, the interrupt waits for the reply.
    /// A request has at most one interrupt in flight; callers share its answer.
    /// - Parameter then: called on the event loop once Redis has stored the interrupt key or found the job ended; with nil when Redis did
    ///   not answer in time (storing the key is retried in the background) or the job was never submitted.
    func interrupt(_ request: RunningRequest, in session: Session, reason: String, then: @escaping (InterruptResult?) -> Void) {
        request.interruptedAt = request.interruptedAt ?? .now()
        guard request.phase == .running else {
            // Redis may not have the job yet; the interrupt is sent when the submission is answered.
            request.waiting.append((reason, then))
            return
        }
        request.unanswered.append(then)
        guard request.unanswered.count == 1 else { return }
        session.account.charge(Self.callCost)
        let (queue, id, owner) = (context.queue, request.jobID, session.owner)
        var logger = context.logger
        for (name, value) in Logger.Metadata.job(id, traceparent: request.traceparent) { logger[metadataKey: name] = value }
        logger[metadataKey: "reason"] = "\(reason)"
        context.await(
            { [logger] () -> InterruptResult? in
                let answer = await Self.answerPatience.run { () async throws(RedisError) in
                    try await queue.interrupt(id, reason: reason, owner: owner)
                }
                GatewayMetrics.interrupted(answer)
                if let answer {
                    logger.info(
                        "interrupt sent", metadata: ["state": "\(answer.state?.rawValue ?? "unknown")", "stored": "\(answer.stored)"])
                } else {
                    logger.warning("interrupt not stored yet; retrying")
                }
                return answer.map { InterruptResult(state: $0.state, stored: $0.stored) }
            }
        ) { [self] result in
            if result == nil { storeIntent(request, in: session, reason: reason) }
            let answers = request.unanswered
            request.unanswered = []
            for answer in answers { answer(result) }
        }
    }

    /// Goes on trying when the acknowledgement could not wait any longer; once a request.
    private func storeIntent(_ request: RunningRequest, in session: Session, reason: String) {
        guard !request.storesIntent else { return }
        request.storesIntent = true
        let (queue, id, owner) = (context.queue, request.jobID, session.owner)
        context.await({
            _ = await Self.intentPatience.run { () async throws(RedisError) in
                try await queue.interrupt(id, reason: reason, owner: owner)
            }
        }) { request.storesIntent = false }
    }

    /// Interrupts a request's job without reporting the result.
    func interruptSurely(_ request: RunningRequest, in session: Session, reason: String) {
        interrupt(request, in: session, reason: reason) { _ in }
    }

    /// Sends the interrupts that waited for the submission, once Redis has the job or the job has ended.
    func interruptWaiting(_ request: RunningRequest, in session: Session) {
        request.phase = .running
        let waiting = request.waiting
        request.waiting = []
        for (reason, answer) in waiting { interrupt(request, in: session, reason: reason, then: answer) }
    }

    /// Answers the waiting interrupts without sending them, because the job has ended or was never submitted.
    func answerWaiting(_ request: RunningRequest, _ answer: InterruptResult?) {
        let waiting = request.waiting
        request.waiting = []
        for entry in waiting { entry.answer(answer) }
    }
}
