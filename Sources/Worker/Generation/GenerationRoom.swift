import Contract
import JobQueue
import Logging
import RedisClient
import Upstream

/// Stands on the upstream loop and holds all running generations; the way in for everything that comes from other threads.
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

    /// To be called once, before anything else.
    func open(
        settings: WorkerSettings, metrics: WorkerMetrics, logger: Logger, released: @escaping @Sendable (JobID, QueueEntry) -> Void
    ) throws {
        core = try GenerationCore(
            room: self, loop: loop, sockets: sockets, redis: consumer.redis, settings: settings, queueSettings: consumer.settings,
            metrics: metrics,
            logger: logger,
            released: released)
    }

    // MARK: from other threads

    /// Takes a claimed job over. Calls from one thread are carried out in their order.
    nonisolated func begin(_ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?) {
        loop.execute { self.assumeIsolated { $0.core?.begin(claim, earlier: earlier, interrupt: interrupt) } }
    }

    /// The job's connection is cut before this returns, where there is one that is being read from; the rest follows on the loop.
    /// - Parameter seenAt: when the message came in, CLOCK_MONOTONIC ns.
    nonisolated func interrupt(_ interrupt: Interrupt, seenAt: UInt64) {
        let closedAt = sockets.cut(interrupt.id) ? loop.now : nil
        loop.execute { self.assumeIsolated { $0.core?.interrupt(interrupt, seenAt: seenAt, closedAt: closedAt) } }
    }

    /// Takes other upstreams for jobs that begin from now on.
    nonisolated func reload(_ upstreams: [UpstreamConfiguration]) {
        loop.execute { self.assumeIsolated { $0.core?.reload(upstreams) } }
    }

    func renewals() -> [LeaseRenewal] { core?.generations.values.map(\.renewal) ?? [] }

    func apply(_ answers: [(LeaseRenewal, LeaseAnswer)]) {
        for (renewal, answer) in answers {
            guard let core, let generation = core.generations[renewal.id], generation.claim.attempt == renewal.attempt else { continue }
            switch answer {
            case .kept: break
            case .interrupted(let interrupt): generation.interrupted(interrupt, seenAt: loop.now)
            // One that is ending may have ended by now: its own write tells.
            case .lost: if generation.ending == nil { core.endedElsewhere(generation) }
            }
        }
    }

    func handBackAll() { core?.handBackAll() }

    func abandon() {
        core?.abandon()
        emptied()
    }

    /// Returns when no job is left.
    func waitUntilEmpty() async {
        guard let core, !core.generations.isEmpty else { return }
        await withCheckedContinuation { waitingForEmpty.append($0) }
    }

    /// Lets those who wait go, although jobs are left.
    func stopWaiting() { emptied() }

    func emptied() {
        for continuation in waitingForEmpty { continuation.resume() }
        waitingForEmpty = []
    }

    // MARK: from the core

    func settle(_ id: JobID) async {
        guard let generation = core?.generations[id] else { return }
        do {
            let reply = try await consumer.redis.send("XREVRANGE", .string(consumer.keys.log(id)), "+", "-", "COUNT", 1)
            generation.settled(newest: JobQueue.firstID(reply))
        } catch {
            generation.settling = false
            generation.answerLost()
        }
    }

    func checkInterrupt(_ id: JobID) async {
        while let generation = core?.generations[id], !generation.isOver {
            do {
                let interrupt = try await consumer.interrupt(of: id)
                return generation.interruptChecked(interrupt)
            } catch {
                // Redis is away, which its connection has said. Nothing is dialled blindly; when the lease is over the job is handed back.
                await pause(.milliseconds(200))
            }
        }
    }

    func handBack(_ id: JobID) async {
        while let generation = core?.generations[id], generation.canBeHandedBack {
            do {
                let given = try await consumer.handBack(generation.renewal)
                core?.logger.info(
                    given ? "job handed back" : "job was taken over before it could be handed back", metadata: generation.claim.job.facts())
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
