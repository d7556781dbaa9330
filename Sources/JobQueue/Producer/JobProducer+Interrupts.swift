import Contract
import NIOCore
import RedisClient

/// Interrupting jobs.
extension JobProducer {
    /// Interrupts a job: ends it if it is queued, signals its worker if it is running.
    /// - Parameter owner: only jobs of this owner are interrupted, others count as unknown; nil for any owner.
    package func interrupt(_ id: JobID, reason: String, owner: String?) async throws(RedisError) -> InterruptAnswer {
        try await interrupt(Interrupt(id: id, reason: reason), owner: owner, force: false)
    }

    /// Interrupts a job like `interrupt`, and also writes the interrupt key and publishes it for a job without a record: one that was
    /// added to the stream by hand and not claimed yet, or whose record Redis has lost. A worker may run such a job, or claim it again.
    package func forceInterrupt(_ id: JobID, reason: String, owner: String? = nil) async throws(RedisError) -> InterruptAnswer {
        try await interrupt(Interrupt(id: id, reason: reason), owner: owner, force: true)
    }

    /// - Parameter force: whether to act as `forceInterrupt`.
    func interrupt(_ interrupt: Interrupt, owner: String?, force: Bool) async throws(RedisError) -> InterruptAnswer {
        let result = await withCheckedContinuation { continuation in
            send(interrupt, owner: owner, force: force) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Interrupts a job without a task. `completion` runs on the event loop, once.
    func send(
        _ interrupt: Interrupt, owner: String?, force: Bool,
        completion: @escaping @Sendable (Result<InterruptAnswer, RedisError>) -> Void
    ) {
        let id = interrupt.id
        let partition = keys.partition(of: id.rawValue)
        let connection = connection(partition: partition)
        redis.run(
            Scripts.interrupt,
            keys: [keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id), keys.cancel(partition: partition)]
                + keys.queues(partition: partition),
            arguments: [
                .string(interrupt.text), .string(owner ?? ""), .string(Keys.group), .integer(settings.retentionSeconds),
                .integer(force ? 1 : 0),
            ]
        ) { [self] result in
            let reply: RESPValue
            switch result {
            case .success(let value): reply = value
            case .failure(let error): return completion(.failure(error))
            }
            let state = reply.string.flatMap { JobState(rawValue: $0) }
            guard state != nil || reply.string == "unknown" else {
                return completion(.failure(redis.misfit(reply, to: "the interrupt script")))
            }
            let isStored = state.map { !$0.isTerminal } ?? force
            if isStored { recentInterrupts.add(.init(interrupt, owner: owner, isForced: force, connection: connection)) }
            let answer = InterruptAnswer(state: state, stored: isStored)
            guard let replicas else { return completion(.success(answer)) }
            replicas.wait(keys.replicated(partition: partition)) { completion(.success(answer)) }
        }
    }
}

/// An interrupt that was sent before the task that waits for its answer begins. Used on the event loop of its producer.
package final class SentInterrupt {
    private typealias Answer = Result<InterruptAnswer, RedisError>

    private var received: Answer?
    private var waiter: CheckedContinuation<Answer, Never>?

    /// Sends the interrupt as `JobProducer.forceInterrupt` does. Must be called on the event loop.
    package init(_ id: JobID, reason: String, owner: String?, by producer: JobProducer) {
        let box = NIOLoopBound(self, eventLoop: producer.redis.eventLoop)
        producer.send(Interrupt(id: id, reason: reason), owner: owner, force: true) { box.value.receive($0) }
    }

    private func receive(_ answer: Answer) {
        received = answer
        waiter?.resume(returning: answer)
        waiter = nil
    }

    /// The answer of Redis. Must be called once at most, by a task on the event loop.
    package func answer() async throws(QueueError) -> InterruptAnswer {
        if let received { return try received.get() }
        return try await withCheckedContinuation { waiter = $0 }.get()
    }
}
