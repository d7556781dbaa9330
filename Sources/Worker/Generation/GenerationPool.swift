import Contract
import CoreMetrics
import CurlTransport
import DequeModule
import JobQueue
import Logging
import Support
import Synchronization
import Upstream

/// The running generations of a worker: starts, interrupts, writes out and removes them.
///
/// **Isolation.** The actor's executor is the upstream loop, whose thread also serves the upstreams' sockets. Bytes are parsed, collected and
/// passed to Redis there, without a change of thread. A `Generation` and what it uses (machine, output, libcurl calls, timers, speech) is not
/// sendable and never leaves the pool. The loop's callbacks reach a generation directly; a generation reaches its pool by the closure that
/// the pool has passed to it, which runs on the pool's isolation. The pool lives as long as its process.
///
/// **What runs where.** `begin`, `interrupt` and `reload` are callable from any thread: they queue work for the loop and return. Calls from
/// one thread are carried out in their order. The other methods run on the loop. Redis answers on its own loop, which passes replies on by
/// one `EpollLoop.execute` per batch.
///
/// **Life of a generation.** `begin` creates it. It asks for writes, for the log's newest id and the interrupt key by `Generation.Request`.
/// It is removed once, when it has ended, is owned by another attempt or was handed back, and its slot is released then. `Generation.stage`
/// is the one record of whether a job was stopped.
///
/// **An interrupt and the end of a job.** `interrupt` shuts the socket down before it returns; what this means for the job is decided later on
/// the loop, by the first that arrives there. If the stream's end was handled before, the generation is ending or removed, and the interrupt
/// changes nothing: the socket then belongs to no job (`UpstreamSockets` keeps jobs and sockets together under a lock). Otherwise the
/// interrupt ends the job; the shut-down socket reports neither output nor an error until then. An interrupt for a job whose claim is in
/// progress is kept by `Claimer` and passed to `begin`.
actor GenerationPool: PinnedActor {
    nonisolated let loop: EpollLoop
    nonisolated let consumer: JobConsumer
    private nonisolated let sockets: UpstreamSockets
    let context: GenerationContext
    /// The upstreams for jobs that start from now on.
    private var route: UpstreamRoute

    var generations: [JobID: Generation] = [:]
    /// Jobs that ended here in the last lease, oldest first. Redis may lose their end, which is written again then.
    var ended: Deque<(generation: Generation, at: UInt64)> = []
    /// The newest attempts of the jobs that run here or are in `ended`.
    private nonisolated let attempts = Mutex<[JobID: Int]>([:])
    /// Maximum number of jobs in `ended`.
    private static let endedMaximum = 2_000
    /// Maximum bytes of their queue entries. The parsed requests take a few times as much.
    private static let endedMaximumBytes = 16 << 20
    private var endedBytes = 0
    private var waitingForEmpty: [CheckedContinuation<Void, Never>] = []

    /// Places under limits over all workers, by holder.
    var reservations: [String: LimitReservation] = [:]
    /// Limits that are looked at again when the next holder can be admitted.
    var limitsLookedAt: Set<SharedLimit> = []
    var isRenewingLimits = false

    private var schedule = OutputSchedule<Generation>()
    private var batchTimer: LoopTimer?
    private var nextBatch: UInt64 = 0
    /// Batches without a reply yet, oldest first.
    private var batches: Deque<(number: UInt64, parts: [(generation: Generation, part: OutputBatch.Part)])> = []

    nonisolated var executor: EpollLoop { loop }

    /// - Parameter loop: must be running, and must not end before the process.
    /// - Throws: when the upstream client cannot be created, for example because of an unreadable CA file.
    init(loop: EpollLoop, consumer: JobConsumer, settings: WorkerSettings, metrics: WorkerMetrics, logger: Logger) throws {
        self.loop = loop
        self.consumer = consumer
        let sockets = UpstreamSockets()
        self.sockets = sockets
        route = UpstreamRoute(settings.upstreams)
        context = GenerationContext(
            loop: loop, settings: settings, queueSettings: consumer.settings,
            upstream: try UpstreamClient(loop: loop, settings: settings.upstreamSettings, sockets: sockets, logger: logger),
            metrics: metrics, logger: logger)
    }

    // MARK: calls from any thread

    /// Starts a claimed job.
    /// - Parameters:
    ///   - earlier: the event log of earlier attempts; empty for the first one.
    ///   - interrupt: an interrupt that arrived during the claim.
    ///   - slot: called on the loop whenever the job's use of a slot changes. The last call is `released`, when this worker no longer owns the
    ///     job; `abandon` does not call it.
    nonisolated func begin(
        _ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?, slot: @escaping @Sendable (SlotUse) -> Void
    ) {
        onLoop { $0.start(claim, earlier: earlier, interrupt: interrupt, slot: slot) }
    }

    /// Interrupts a job; does nothing for one that does not run here. The upstream connection that is being read from, if any, is shut down
    /// before this returns; the rest follows on the loop.
    /// - Parameter receivedAt: when the message was received, CLOCK_MONOTONIC ns.
    nonisolated func interrupt(_ interrupt: Interrupt, receivedAt: UInt64) {
        let closedAt = sockets.cut(interrupt.id) ? loop.now : nil
        onLoop { $0.generations[interrupt.id]?.interrupted(interrupt, receivedAt: receivedAt, closedAt: closedAt) }
    }

    /// Replaces the upstreams for jobs that start from now on; running jobs keep theirs.
    nonisolated func reload(_ upstreams: [UpstreamConfiguration]) {
        onLoop { pool in
            pool.route = UpstreamRoute(upstreams)
            pool.context.gate.removeAll(except: Set(upstreams.map(\.name)))
        }
    }

    /// The newest attempt of a job that runs here or has ended here recently; 0 for none.
    nonisolated func knownAttempt(of id: JobID) -> Int { attempts.withLock { $0[id] ?? 0 } }

    /// Runs `body` on the loop, after what this thread has queued before.
    ///
    /// `EpollLoop` is the actor's executor and runs its closures on the thread of its jobs, so isolation can be assumed in them. Only here and
    /// in `writeBatch`, which does the same without another closure per batch.
    nonisolated func onLoop(_ body: @escaping @Sendable (isolated GenerationPool) -> Void) {
        loop.execute { self.assumeIsolated(body) }
    }

    // MARK: starting and removing jobs

    private func start(
        _ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?, slot: @escaping @Sendable (SlotUse) -> Void
    ) {
        // An older attempt in this worker lost its lease without noticing.
        if let old = generations[claim.job.id] {
            guard old.claim.attempt < claim.attempt else { return slot(.released) }
            old.ownershipLost()
            // The new attempt has taken over the slot of the same entry. After a loss of data in Redis the job may have another one.
            if old.claim.entry.queue != claim.entry.queue || old.claim.entry.id != claim.entry.id { old.slot(.released) }
        }
        attempts.withLock { $0[claim.job.id] = claim.attempt }
        let model = claim.job.model ?? context.settings.defaultModel
        let generation = Generation(
            claim: claim, candidates: route.candidates(for: model), context: context, slot: slot
        ) { generation, request in
            self.carryOut(request, of: generation)
        }
        generations[claim.job.id] = generation
        generation.begin(earlier: earlier, interrupt: interrupt)
    }

    private func carryOut(_ request: Generation.Request, of generation: Generation) {
        switch request {
        case .write(let tokens):
            schedule.count(tokens)
            scheduleBatch(schedule.add(generation, now: loop.now))
        case .validate: validate(generation)
        case .readAudio:
            let id = generation.id
            Task { await readAudio(of: id) }
        case .readInterruptKey:
            let id = generation.id
            Task { await checkInterrupt(of: id) }
        case .reserve(let reservation): reserve(reservation)
        case .release(let reservation, let used): release(reservation, used: used)
        case .handBack:
            let id = generation.id
            Task { await handBack(id) }
        case .removeEnded where consumer.waitsForReplicas:
            let (id, attempt) = (generation.id, generation.claim.attempt)
            consumer.whenReplicated(partition: generation.claim.entry.partition) { self.onLoop { $0.removeEnded(id, attempt: attempt) } }
        case .removeEnded: removeEnded(generation)
        case .removeLost: removeLost(generation)
        }
    }

    /// Removes a generation after replicas have its terminal event.
    private func removeEnded(_ id: JobID, attempt: Int) {
        guard let generation = generations[id], generation.claim.attempt == attempt else { return }
        removeEnded(generation)
    }

    /// Removes a generation after its terminal event was written.
    private func removeEnded(_ generation: Generation) {
        if let ending = generation.ending, !generation.hasEnded {
            context.metrics.finished(ending)
            context.logger.info(
                "job ended",
                metadata: generation.claim.job.logMetadata([
                    "state": "\(ending.type)", "attempt": "\(generation.claim.attempt)", "tokens": "\(generation.usage.completionTokens)",
                ]))
        }
        generation.hasEnded = true
        remove(generation, isEnded: true)
    }

    /// Stops and removes a generation: another attempt owns the job, it ended elsewhere, or Redis no longer has it.
    func removeLost(_ generation: Generation) {
        generation.ownershipLost()
        remove(generation)
        let (claim, heldAt) = (generation.claim, generation.heldAt)
        Task { await endIfGone(claim, heldAt: heldAt) }
    }

    /// Removes a generation and releases its slot.
    func remove(_ generation: Generation, isEnded: Bool = false) {
        guard generations[generation.id] === generation else { return }
        generations[generation.id] = nil
        if isEnded { remember(generation) } else { forget(generation) }
        generation.slot(.released)
        if generations.isEmpty { stopWaiting() }
    }

    /// Keeps an ended generation for a lease, and forgets older ones.
    private func remember(_ generation: Generation) {
        generation.preparedBody = nil
        ended.append((generation, loop.now))
        endedBytes += generation.claim.entry.job?.count ?? 0
        forgetOld()
    }

    /// Forgets the jobs that ended more than a lease ago, and the oldest ones beyond the limits.
    func forgetOld() {
        let (now, lease) = (loop.now, consumer.settings.lease.timeoutNanoseconds)
        while let oldest = ended.first,
            ended.count > Self.endedMaximum || endedBytes > Self.endedMaximumBytes || now &- oldest.at > lease
        {
            removeFromEnded(oldest.generation)
            forget(oldest.generation)
        }
    }

    func removeFromEnded(_ generation: Generation) {
        guard let index = ended.firstIndex(where: { $0.generation === generation }) else { return }
        ended.remove(at: index)
        endedBytes -= generation.claim.entry.job?.count ?? 0
    }

    /// Forgets the attempt of a generation, unless a newer one or a reopened one is known.
    private func forget(_ generation: Generation) {
        guard generations[generation.id] == nil else { return }
        attempts.withLock { if $0[generation.id] == generation.claim.attempt { $0[generation.id] = nil } }
    }

    /// Closes all upstream connections. The jobs are handed back once Redis has accepted their collected output.
    func handBackAll() {
        for generation in generations.values { generation.prepareHandBack() }
    }

    /// Does the same for the jobs of some partitions.
    func handBack(partitions: Set<Int>) {
        for generation in generations.values where partitions.contains(generation.claim.entry.partition) { generation.prepareHandBack() }
    }

    /// Closes all upstream connections and removes all jobs; their leases expire.
    func abandon() {
        for generation in generations.values { generation.close() }
        generations.removeAll()
        if let batchTimer { loop.cancel(batchTimer) }
        context.upstream.close()
        stopWaiting()
    }

    /// Returns when no job is running, or when `stopWaiting` is called.
    func waitUntilEmpty() async {
        await withCheckedContinuation { continuation in
            // Other calls may run on the actor before this body does, so a check outside of it would be too early.
            if generations.isEmpty { continuation.resume() } else { waitingForEmpty.append(continuation) }
        }
    }

    /// Resumes all waiters although jobs may be left.
    func stopWaiting() {
        for continuation in waitingForEmpty { continuation.resume() }
        waitingForEmpty = []
    }

    // MARK: writing

    /// Arranges that the next batch is written when `schedule` says.
    private func scheduleBatch(_ action: OutputSchedule<Generation>.Action) {
        switch action {
        case .none: break
        case .writeAtEndOfTurn:
            if let batchTimer, batchTimer.isSet { loop.cancel(batchTimer) }
            loop.atEndOfTurn { self.writeBatch() }
        case .writeAfter(let nanoseconds):
            let timer = batchTimer ?? LoopTimer { self.writeBatch() }
            batchTimer = timer
            loop.set(timer, after: .nanoseconds(Int64(nanoseconds)))
        }
    }

    /// Writes the output of all due generations: one batch per connection, so that each shard of a cluster has its own.
    private func writeBatch() {
        let now = loop.now
        var due = schedule.beginBatch(at: now)[...]
        while let first = due.first {
            let connection = consumer.connections(partition: first.claim.entry.partition)
            var others: [Generation] = []
            var batch = OutputBatch(isSharded: consumer.isCluster, jobs: due.count)
            var parts: [(generation: Generation, part: OutputBatch.Part)] = []
            parts.reserveCapacity(due.count)
            for generation in due {
                // Redis may hold older data on a new connection. The comparison schedules the next write.
                guard generation.connection == connection else {
                    if consumer.connections(partition: generation.claim.entry.partition) == generation.connection {
                        others.append(generation)
                    } else {
                        generation.isScheduled = false
                        if generation.stage != .over { validate(generation) }
                    }
                    continue
                }
                generation.isScheduled = false
                let part = generation.write(to: &batch, now: now)
                if !part.isEmpty { parts.append((generation, part)) }
            }
            due = others[...]
            if !parts.isEmpty { send(batch, parts, onConnection: connection) }
        }
    }

    private func send(_ batch: OutputBatch, _ parts: [(generation: Generation, part: OutputBatch.Part)], onConnection connection: Int) {
        let number = nextBatch
        nextBatch += 1
        batches.append((number, parts))
        schedule.sent()
        consumer.write(batch, onConnection: connection) { [loop] reply in
            loop.execute { self.assumeIsolated { $0.received(reply, toBatch: number) } }
        }
    }

    /// Passes the replies of a batch to its generations.
    private func received(_ reply: OutputBatch.Reply, toBatch number: UInt64) {
        // The replies of one connection arrive in order, except for batches that time out together with it.
        guard let index = batches.firstIndex(where: { $0.number == number }) else { return }
        let parts = batches.remove(at: index).parts
        scheduleBatch(schedule.answered())
        guard var replies = OutputReplies(reply) else {
            for (generation, _) in parts { generation.replyLost() }
            return
        }
        for (generation, part) in parts { generation.received(replies.next(part)) }
    }
}
