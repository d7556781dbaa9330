import Contract
import CoreMetrics
import CurlTransport
import DequeModule
import JobQueue
import Logging
import RedisClient
import Upstream

/// All running generations of this worker and their shared state.
///
/// Not thread-safe: used on the upstream loop only. Bytes are parsed, batched and passed to Redis on this thread without a switch. An
/// interrupt is a plain call; its connection was already closed by the thread that received the interrupt.
final class GenerationCore {
    /// Minimum interval between write batches, in ns. First tokens and terminal events bypass it.
    ///
    /// An idle worker writes a token at once. Under load one switch to the thread of the Redis connection carries the tokens of all
    /// streams, instead of one wake-up per token.
    static let batchInterval: UInt64 = 1_000_000

    let loop: EpollLoop
    let settings: WorkerSettings
    let queueSettings: QueueSettings
    private(set) var route: UpstreamRoute
    let gate: UpstreamGate
    let upstream: UpstreamClient
    let speechGate: SpeechGate
    let metrics: WorkerMetrics
    let logger: Logger
    private let redis: RedisClient
    private unowned let room: GenerationRoom
    /// Called for each job that this worker no longer owns; callable on any thread.
    private let released: @Sendable (JobID, QueueEntry) -> Void

    private(set) var generations: [JobID: Generation] = [:]
    /// Generations with output for the next batch.
    private var marked: [Generation] = []
    private var batchDue = BatchDue.never
    /// CLOCK_MONOTONIC ns.
    private var lastBatchAt: UInt64 = 0
    private var batchTimer: LoopTimer?
    private var pace = OutputPace()
    /// Generations whose next write is deferred.
    private var held = HeldWrites<Generation>()
    private var nextBatch: UInt64 = 0
    /// Batches without a reply yet, oldest first.
    private var batches: Deque<(number: UInt64, parts: [(generation: Generation, part: OutputWriter.Part, count: Int)])> = []

    init(
        room: GenerationRoom, loop: EpollLoop, sockets: UpstreamSockets, redis: RedisClient, settings: WorkerSettings,
        queueSettings: QueueSettings,
        metrics: WorkerMetrics, logger: Logger,
        released: @escaping @Sendable (JobID, QueueEntry) -> Void
    ) throws {
        self.room = room
        self.loop = loop
        self.redis = redis
        self.settings = settings
        self.queueSettings = queueSettings
        self.metrics = metrics
        self.logger = logger
        self.released = released
        route = UpstreamRoute(settings.upstreams)
        gate = UpstreamGate(metrics: metrics, logger: logger)
        speechGate = SpeechGate(limit: settings.speechConcurrency)
        upstream = try UpstreamClient(loop: loop, settings: settings.upstreamSettings, sockets: sockets, logger: logger)
    }

    /// Replaces the upstreams for jobs that start from now on; running jobs keep their route.
    func reload(_ upstreams: [UpstreamConfiguration]) {
        route = UpstreamRoute(upstreams)
        gate.keep(Set(upstreams.map(\.name)))
    }

    // MARK: starting and ending jobs

    /// Starts a claimed job.
    func begin(_ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?) {
        // An older attempt in this worker lost its lease without noticing.
        if let old = generations[claim.job.id] {
            guard old.claim.attempt < claim.attempt else { return }
            old.lost()
        }
        let generation = Generation(claim: claim, core: self)
        generations[claim.job.id] = generation
        generation.begin(earlier: earlier, interrupt: interrupt)
    }

    /// Interrupts a running job; does nothing if it does not run here.
    /// - Parameters:
    ///   - seenAt: when the message was received, CLOCK_MONOTONIC ns.
    ///   - closedAt: when the connection was closed; nil if it was not.
    func interrupt(_ interrupt: Interrupt, seenAt: UInt64, closedAt: UInt64?) {
        generations[interrupt.id]?.interrupted(interrupt, seenAt: seenAt, closedAt: closedAt)
    }

    /// Removes a generation after its terminal event was written.
    func finished(_ generation: Generation) {
        if let ending = generation.ending {
            metrics.finished(ending)
            logger.info(
                "job ended",
                metadata: generation.claim.job.logMetadata([
                    "state": "\(ending.type)", "attempt": "\(generation.claim.attempt)", "tokens": "\(generation.usage.completionTokens)",
                ]))
        }
        remove(generation)
    }

    /// Stops and removes a generation: another attempt owns the job, it ended elsewhere, or Redis no longer has it.
    func endedElsewhere(_ generation: Generation) {
        generation.lost()
        remove(generation)
    }

    /// Removes a generation and frees its slot.
    private func remove(_ generation: Generation) {
        guard generations[generation.id] === generation else { return }
        generations[generation.id] = nil
        released(generation.id, generation.claim.entry)
        if generations.isEmpty { room.assumeIsolated { $0.emptied() } }
    }

    /// Closes all upstream connections. The jobs are handed back once Redis has accepted their collected output.
    func handBackAll() {
        for generation in generations.values { generation.prepareHandBack() }
    }

    /// Removes a generation after its hand-back.
    func handedBack(_ generation: Generation) {
        metrics.handBacks.increment()
        generation.close()
        remove(generation)
    }

    /// Closes all upstream connections and removes all jobs; their leases expire.
    func abandon() {
        for generation in generations.values { generation.close() }
        generations.removeAll()
        held.removeAll()
        if let batchTimer { loop.cancel(batchTimer) }
        upstream.close()
    }

    // MARK: writing

    /// Counts received tokens for the write interval.
    func count(_ tokens: Int) { pace.count(tokens) }

    /// Schedules a write of a generation, in the next batch that its write interval permits.
    func mark(_ generation: Generation) {
        guard !generation.isMarked else { return }
        if pace.interval > 0 {
            let now = loop.now
            let due = generation.writeIsDue(interval: pace.interval)
            if due > now {
                if !generation.isHeld {
                    generation.isHeld = true
                    held.hold(generation, until: due, now: now)
                }
                return scheduleBatch(afterAtLeast: Self.batchInterval)
            }
        }
        generation.isMarked = true
        marked.append(generation)
        scheduleBatch(afterAtLeast: 0, isUrgent: generation.isUrgent)
    }

    /// How the next batch is scheduled.
    private enum BatchDue { case never, byTimer, atEndOfTurn }

    /// Schedules the next batch: at the end of the current loop turn or by timer.
    /// - Parameters:
    ///   - wait: minimum wait in ns.
    ///   - isUrgent: bypasses the minimum interval between batches.
    private func scheduleBatch(afterAtLeast wait: UInt64, isUrgent: Bool = false) {
        guard batchDue == .never || isUrgent && batchDue == .byTimer else { return }
        let since = loop.now &- lastBatchAt
        if isUrgent || wait == 0 && since >= Self.batchInterval {
            if batchDue == .byTimer, let batchTimer { loop.cancel(batchTimer) }
            batchDue = .atEndOfTurn
            loop.atEndOfTurn { [unowned self] in writeBatch() }
        } else {
            batchDue = .byTimer
            let timer = batchTimer ?? LoopTimer { [unowned self] in writeBatch() }
            batchTimer = timer
            loop.set(timer, after: .nanoseconds(Int64(max(wait, Self.batchInterval &- min(since, Self.batchInterval)))))
        }
    }

    /// Writes the output of all due generations in one pipeline.
    private func writeBatch() {
        batchDue = .never
        let now = loop.now
        lastBatchAt = now
        pace.advance(to: now)
        held.release(at: now) { generation in
            generation.isHeld = false
            guard !generation.isMarked else { return }
            generation.isMarked = true
            marked.append(generation)
        }
        defer { if !held.isEmpty { scheduleBatch(afterAtLeast: Self.batchInterval) } }
        let due = marked
        marked.removeAll(keepingCapacity: true)
        var pipeline = RedisPipeline()
        var parts: [(generation: Generation, part: OutputWriter.Part, count: Int)] = []
        parts.reserveCapacity(due.count)
        for generation in due {
            generation.isMarked = false
            let part = generation.write(to: &pipeline)
            switch part {
            case .events(let count), .eventsAndEnding(let count): parts.append((generation, part, count))
            case .nothing: if generation.canBeHandedBack { handBack(generation) }
            }
        }
        guard !parts.isEmpty else { return }
        let number = nextBatch
        nextBatch += 1
        batches.append((number, parts))
        redis.send(pipeline) { [loop, unowned room] result in
            loop.execute { room.assumeIsolated { $0.core?.answered(number, result) } }
        }
    }

    /// Distributes the replies of a batch to its generations.
    private func answered(_ number: UInt64, _ result: Result<[RESPValue], RedisError>) {
        // Replies arrive in order except for batches that time out together with their connection, so the batch is looked up by number.
        guard let index = batches.firstIndex(where: { $0.number == number }) else { return }
        let parts = batches.remove(at: index).parts
        switch result {
        case .success(let replies):
            var start = replies.startIndex
            for (generation, part, count) in parts {
                generation.answered(part, replies[start..<start + count])
                start += count
            }
        case .failure:
            for (generation, _, _) in parts { generation.answerLost() }
        }
    }

    // MARK: single Redis requests

    /// Reads the newest id of the log after a lost or refused write.
    func settle(_ generation: Generation) {
        guard !generation.settling else { return }
        generation.settling = true
        let id = generation.id
        // The first read is immediate, because a fenced attempt must stop now. Later ones are delayed up to about 1 s: Redis rejects
        // writes.
        let wait = Duration.milliseconds(generation.troubles <= 1 ? 0 : min(1_000, 10 << min(generation.troubles, 7)))
        _ = loop.schedule(after: wait) { [unowned self] in
            let room = room
            Task { await room.settle(id) }
        }
    }

    /// Reads the interrupt key, then calls `interruptChecked`.
    func checkInterrupt(_ generation: Generation) {
        let (room, id) = (room, generation.id)
        Task { await room.checkInterrupt(id) }
    }

    /// Hands a job back; retried until Redis replies.
    private func handBack(_ generation: Generation) {
        let (room, id) = (room, generation.id)
        Task { await room.handBack(id) }
    }
}
