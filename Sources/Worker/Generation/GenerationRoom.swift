import Contract
import CurlTransport
import JobQueue
import Logging
import RedisClient
import Upstream

/// Owns the running generations on the upstream loop, and is the entry point for calls from other threads.
actor GenerationRoom {
    private nonisolated let loop: EpollLoop
    private nonisolated let consumer: JobConsumer
    private nonisolated let sockets = UpstreamSockets()
    private(set) var core: GenerationCore?
    private var waitingForEmpty: [CheckedContinuation<Void, Never>] = []

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(loop: EpollLoop, consumer: JobConsumer) {
        self.loop = loop
        self.consumer = consumer
    }

    /// Creates the core. Must be called once, before any other method.
    /// - Throws: when the upstream client cannot be created, for example because of an unreadable CA file.
    /// - Parameter released: called on the upstream loop for each job that this worker no longer owns.
    func open(
        settings: WorkerSettings, metrics: WorkerMetrics, logger: Logger, released: @escaping @Sendable (JobID, QueueEntry) -> Void
    ) throws {
        core = try GenerationCore(
            room: self, loop: loop, sockets: sockets, redis: consumer.redis, settings: settings, queueSettings: consumer.settings,
            metrics: metrics,
            logger: logger,
            released: released)
    }

    // MARK: calls from other threads

    /// Starts a claimed job. Calls from one thread are executed in order. Callable on any thread.
    nonisolated func begin(_ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?) {
        loop.execute { self.assumeIsolated { $0.core?.begin(claim, earlier: earlier, interrupt: interrupt) } }
    }

    /// Interrupts a job. Its upstream connection, if one is being read from, is closed before this returns; the rest follows on the loop.
    /// Callable on any thread.
    /// - Parameter seenAt: when the message was received, CLOCK_MONOTONIC ns.
    nonisolated func interrupt(_ interrupt: Interrupt, seenAt: UInt64) {
        let closedAt = sockets.cut(interrupt.id) ? loop.now : nil
        loop.execute { self.assumeIsolated { $0.core?.interrupt(interrupt, seenAt: seenAt, closedAt: closedAt) } }
    }

    /// Replaces the upstreams for jobs that start from now on. Callable on any thread.
    nonisolated func reload(_ upstreams: [UpstreamConfiguration]) {
        loop.execute { self.assumeIsolated { $0.core?.reload(upstreams) } }
    }

    /// The lease renewals of all running jobs.
    func renewals() -> [LeaseRenewal] { core?.generations.values.map(\.renewal) ?? [] }

    /// Applies the replies of a renewal: interrupts jobs with an interrupt key and stops lost ones.
    func apply(_ answers: [(LeaseRenewal, LeaseAnswer)]) {
        for (renewal, answer) in answers {
            guard let core, let generation = core.generations[renewal.id], generation.claim.attempt == renewal.attempt else { continue }
            switch answer {
            case .kept: break
            case .interrupted(let interrupt): generation.interrupted(interrupt, seenAt: loop.now)
            // A job that is ending may have ended meanwhile; the reply to its terminal write decides.
            case .lost: if generation.ending == nil { core.endedElsewhere(generation) }
            }
        }
    }

    /// Hands back all running jobs.
    func handBackAll() { core?.handBackAll() }

    /// Closes all upstream connections and removes all jobs; their leases expire.
    func abandon() {
        core?.abandon()
        emptied()
    }

    /// Returns when no job is running.
    func waitUntilEmpty() async {
        guard let core, !core.generations.isEmpty else { return }
        await withCheckedContinuation { waitingForEmpty.append($0) }
    }

    /// Resumes all waiters although jobs are left.
    func stopWaiting() { emptied() }

    /// Resumes all waiters.
    func emptied() {
        for continuation in waitingForEmpty { continuation.resume() }
        waitingForEmpty = []
    }

    // MARK: Redis requests of the core

    /// Reads the newest id of a job's event log after a lost or refused write.
    func settle(_ id: JobID) async {
        guard let generation = core?.generations[id] else { return }
        do {
            let reply = try await consumer.redis.send("XREVRANGE", .string(consumer.keys.log(id)), "+", "-", "COUNT", 1)
            generation.settled(newest: JobProducer.firstID(reply))
        } catch {
            generation.settling = false
            generation.answerLost()
        }
    }

    /// Reads the interrupt key, retrying every 200 ms while Redis is unreachable.
    func checkInterrupt(_ id: JobID) async {
        while let generation = core?.generations[id], !generation.isOver {
            do {
                let interrupt = try await consumer.interrupt(of: id)
                return generation.interruptChecked(interrupt)
            } catch {
                // Redis is unreachable, which its connection logs. No request is sent without this check; if the lease expires first, the
                // job is handed back.
                await pause(.milliseconds(200))
            }
        }
    }

    /// Hands a job back, retrying every 200 ms.
    func handBack(_ id: JobID) async {
        while let generation = core?.generations[id], generation.canBeHandedBack {
            do {
                let isHandedBack = try await consumer.handBack(generation.renewal)
                core?.logger.info(
                    isHandedBack ? "job handed back" : "job was taken over before it could be handed back",
                    metadata: generation.claim.job.logMetadata)
                core?.handedBack(generation)
                return
            } catch {
                await pause(.milliseconds(200))
            }
        }
    }

    private func pause(_ duration: Duration) async {
        await withCheckedContinuation { continuation in
            _ = loop.schedule(after: duration) { continuation.resume() }
        }
    }
}
