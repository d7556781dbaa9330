import Contract
import CoreMetrics
import DequeModule
import JobQueue
import Logging
import RedisClient
import Upstream

/// All running generations of this worker and what they share. Lives on the loop: bytes are parsed, batched and handed to Redis here
/// without a change of thread, and an interrupt is a plain call. (Its connection was cut before that, by the thread that heard of it.)
final class GenerationCore {
    /// Batches of writes begin at least so far apart, but for first tokens and ends. At rest a token is written at once; under load one
    /// hand-over to the Redis connection's thread carries the tokens of all streams, so that no token costs a wake-up of its own. In ns.
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
    /// Told of each job that is no longer this worker's; any thread.
    private let released: @Sendable (JobID, QueueEntry) -> Void

    private(set) var generations: [JobID: Generation] = [:]
    private var marked: [Generation] = []
    private var batchDue = BatchDue.never
    private var lastBatchAt: UInt64 = 0
    private var batchTimer: LoopTimer?
    private var pace = OutputPace()
    private var held = HeldWrites<Generation>()
    private var nextBatch: UInt64 = 0
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

    /// For jobs that begin from now on; those that run keep their route.
    func reload(_ upstreams: [UpstreamConfiguration]) {
        route = UpstreamRoute(upstreams)
        gate.keep(Set(upstreams.map(\.name)))
    }

    // MARK: jobs come and go

    func begin(_ claim: Claim, earlier: [LoggedEvent], interrupt: Interrupt?) {
        // An older attempt of this worker that lost its lease without having noticed.
        if let old = generations[claim.job.id] {
            guard old.claim.attempt < claim.attempt else { return }
            old.lost()
        }
        let generation = Generation(claim: claim, core: self)
        generations[claim.job.id] = generation
        generation.begin(earlier: earlier, interrupt: interrupt)
    }

    /// - Parameters:
    ///   - seenAt: CLOCK_MONOTONIC ns.
    ///   - closedAt: when the connection was cut; nil: it was not.
    func interrupt(_ interrupt: Interrupt, seenAt: UInt64, closedAt: UInt64?) {
        generations[interrupt.id]?.interrupted(interrupt, seenAt: seenAt, closedAt: closedAt)
    }

    func finished(_ generation: Generation) {
        if let ending = generation.ending {
            metrics.finished(ending)
            logger.info(
                "job ended",
                metadata: generation.claim.job.facts([
                    "state": "\(ending.type)", "attempt": "\(generation.claim.attempt)", "tokens": "\(generation.usage.completionTokens)",
                ]))
        }
        remove(generation)
    }

    /// Another attempt has it, somebody else ended it, or Redis lost it.
    func endedElsewhere(_ generation: Generation) {
        generation.lost()
        remove(generation)
    }

    private func remove(_ generation: Generation) {
        guard generations[generation.id] === generation else { return }
        generations[generation.id] = nil
        released(generation.id, generation.claim.entry)
        if generations.isEmpty { room.assumeIsolated { $0.emptied() } }
    }

    /// Closes every upstream; what was collected is written as soon as Redis takes it, then the jobs are handed back.
    func handBackAll() {
        for generation in generations.values { generation.prepareHandBack() }
    }

    func handedBack(_ generation: Generation) {
        metrics.handBacks.increment()
        generation.close()
        remove(generation)
    }

    /// Closes every upstream at once and forgets the jobs; their leases run out.
    func abandon() {
        for generation in generations.values { generation.close() }
        generations.removeAll()
        held.removeAll()
        if let batchTimer { loop.cancel(batchTimer) }
        upstream.close()
    }

    // MARK: writing

    /// So many tokens came in.
    func count(_ tokens: Int) { pace.count(tokens) }

    /// The generation has something to write; it goes out with the next batch in which it may.
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

    private enum BatchDue { case never, byTimer, atEndOfTurn }

    /// - Parameter wait: ns.
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

    private func answered(_ number: UInt64, _ result: Result<[RESPValue], RedisError>) {
        // In order but for batches that time out together with their connection: found by number.
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

    // MARK: what needs an answer of Redis first

    func settle(_ generation: Generation) {
        guard !generation.settling else { return }
        generation.settling = true
        let id = generation.id
        // The first time at once: a fenced attempt must end now. Then slower, up to a second: Redis takes no writes.
        let wait = Duration.milliseconds(generation.troubles <= 1 ? 0 : min(1_000, 10 << min(generation.troubles, 7)))
        _ = loop.schedule(after: wait) { [unowned self] in
            let room = room
            Task { await room.settle(id) }
        }
    }

    func checkInterrupt(_ generation: Generation) {
        let (room, id) = (room, generation.id)
        Task { await room.checkInterrupt(id) }
    }

    private func handBack(_ generation: Generation) {
        let (room, id) = (room, generation.id)
        Task { await room.handBack(id) }
    }
}
