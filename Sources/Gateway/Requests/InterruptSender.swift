import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// What Redis said to an interrupt.
struct InterruptResult: Sendable, Equatable {
    /// As found; nil: there is no such job.
    var state: JobState?
    /// The intent is held for a job that had not ended.
    var stored: Bool
}

/// INTERRUPT, from a client's wish to the durable intent in Redis.
extension SessionHost {
    /// How long a client's acknowledgement waits for Redis, and how long the intent is tried after that.
    private static let answerPatience = Patience.seconds(10)
    private static let intentPatience = Patience.seconds(600)
    /// Charged to the session's account for each call to Redis, bytes.
    private static let callCost = 4 << 10

    /// A request has at most one interrupt on its way to Redis; whoever asks meanwhile shares its answer.
    /// - Parameter then: on the event loop, when Redis holds the intent (or found the job ended); nil when Redis could not be reached in
    /// time, or
    ///   there is no job. The intent is tried on all the same.
    func interrupt(_ request: RunningRequest, in session: Session, reason: String, then: @escaping (InterruptResult?) -> Void) {
        request.interruptedAt = request.interruptedAt ?? .now()
        guard request.phase == .running else {
            // Redis would not know the job yet: sent as soon as it is known to be there.
            request.waiting.append((reason, then))
            return
        }
        request.unanswered.append(then)
        guard request.unanswered.count == 1 else { return }
        session.account.charge(Self.callCost)
        let (queue, id, owner) = (context.queue, request.jobID, session.owner)
        var logger = context.logger
        for (name, fact) in JobFacts.of(id, traceparent: request.traceparent) { logger[metadataKey: name] = fact }
        logger[metadataKey: "reason"] = "\(reason)"
        context.await(
            { [logger] () -> InterruptResult? in
                let answer = await Self.answerPatience.until { () async throws(RedisError) in
                    try await queue.interrupt(id, reason: reason, owner: owner)
                }
                GatewayMetrics.interrupted(answer)
                if let answer {
                    logger.info(
                        "interrupt sent", metadata: ["state": "\(answer.state?.rawValue ?? "unknown")", "stored": "\(answer.stored)"])
                } else {
                    logger.warning("interrupt waits for Redis")
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
            _ = await Self.intentPatience.until { () async throws(RedisError) in
                try await queue.interrupt(id, reason: reason, owner: owner)
            }
        }) { request.storesIntent = false }
    }

    /// The same when nobody waits for the answer.
    func interruptSurely(_ request: RunningRequest, in session: Session, reason: String) {
        interrupt(request, in: session, reason: reason) { _ in }
    }

    /// The job is in Redis now (or was): what waited for that is sent.
    func interruptWaiting(_ request: RunningRequest, in session: Session) {
        request.phase = .running
        let waiting = request.waiting
        request.waiting = []
        for (reason, answer) in waiting { interrupt(request, in: session, reason: reason, then: answer) }
    }

    /// What waited is answered without asking Redis.
    func answerWaiting(_ request: RunningRequest, _ answer: InterruptResult?) {
        let waiting = request.waiting
        request.waiting = []
        for entry in waiting { entry.answer(answer) }
    }
}
