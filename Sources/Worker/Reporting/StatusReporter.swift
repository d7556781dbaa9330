import Contract
import JobQueue
import Logging
import NIOCore
import Support
import Synchronization
import Upstream

/// Writes the heartbeat of this worker to Redis, with the figures that operator tools show: each second while there is news, and each
/// renewal interval. Runs on the event loop of the Redis connections.
actor StatusReporter: PinnedActor {
    private static let period = Duration.seconds(1)

    private nonisolated let consumer: JobConsumer
    private let pool: GenerationPool
    private let claimer: Claimer
    private let capacity: Int
    /// Milliseconds since 1970.
    private let started: Int
    private let tally: WorkerTally
    private let logger: Logger
    private let clock: @Sendable () -> UInt64
    private let drain: DrainSignal
    /// Whether Redis accepts the heartbeats.
    nonisolated let writes = WriteHealth()
    /// The number of workers of the deployment when the last heartbeat was written, at least 1; those that ended in the last leases included.
    nonisolated let workers = Atomic(1)
    /// The models that the upstreams serve by name.
    private nonisolated let models = Mutex<(served: [String], counted: [String])>(([], []))
    private nonisolated let rounds: RoundTimer

    private var window = ReportWindow()
    /// The last heartbeat that Redis has accepted; nil when one must be written.
    private var written: WorkerReport?
    private var isWriting = false

    nonisolated var executor: QueueExecutor { consumer.executor }

    /// - Parameter clock: CLOCK_MONOTONIC ns.
    init(
        consumer: JobConsumer, pool: GenerationPool, claimer: Claimer, capacity: Int, tally: WorkerTally, logger: Logger,
        clock: @escaping @Sendable () -> UInt64, drain: DrainSignal
    ) {
        self.consumer = consumer
        self.pool = pool
        self.claimer = claimer
        self.capacity = capacity
        self.tally = tally
        self.logger = logger
        self.clock = clock
        self.drain = drain
        started = WallClock.milliseconds
        rounds = RoundTimer(consumer.eventLoop)
    }

    /// Writes heartbeats with news until `stop`.
    func run() async {
        let period = TimeAmount(min(Self.period, consumer.settings.renewalInterval))
        while !rounds.isStopped {
            await writeHeartbeat(evenWithoutNews: false)
            await rounds.wait(for: period)
        }
    }

    nonisolated func stop() { rounds.stop() }

    /// Writes a heartbeat even without news, so that it does not expire. Called each renewal interval.
    func beat() async { await writeHeartbeat(evenWithoutNews: true) }

    /// Writes the next heartbeat even without news: after a reconnect Redis may have lost the last one.
    func reconnected() { written = nil }

    /// Sets the upstreams whose models the heartbeat lists. An upstream without models and aliases serves any model, so that no list of them
    /// would be complete.
    nonisolated func serve(_ upstreams: [UpstreamConfiguration]) {
        let names = Set(upstreams.flatMap { $0.models + $0.aliases.keys })
        let counted = upstreams.filter(\.countsTokens).flatMap { upstream in
            upstream.models.isEmpty && upstream.aliases.isEmpty ? [WorkerReport.anyModel] : upstream.models + upstream.aliases.keys
        }
        models.withLock { $0 = (names.sorted(), Set(counted).sorted()) }
    }

    /// Writes a heartbeat, unless one is being written; a failure is logged at level debug and the next one tries again.
    private func writeHeartbeat(evenWithoutNews: Bool) async {
        guard !isWriting else { return }
        isWriting = true
        defer { isWriting = false }
        var report = tally.report
        report.slowest = await pool.longestRunning(WorkerReport.slowestCount)
        report.inFlight = await claimer.inFlight
        report.capacity = capacity
        report.isDraining = drain.hasBegun
        report.version = BuildInformation.version
        report.startedMilliseconds = started
        (report.models, report.countedModels) = models.withLock { $0 }
        report = window.lately(report, at: clock())
        // After `stop` the heartbeat is removed.
        guard evenWithoutNews || written.map({ report.isNews(after: $0) }) ?? true, !rounds.isStopped else { return }
        written = nil
        do {
            let reply = try await consumer.writeHeartbeat(report)
            workers.store(reply.workers, ordering: .relaxed)
            writes.record(reply.rejection)
            if reply.rejection == nil { written = report }
        } catch {
            writes.record(error)
            logger.debug("failed to write the heartbeat", metadata: ["error": "\(error)"])
        }
    }

    /// Removes the heartbeat after a drain, so that the worker is no longer listed.
    func removeHeartbeat() async {
        do { try await consumer.removeHeartbeat() } catch {
            logger.debug("failed to delete the heartbeat; it expires by itself", metadata: ["error": "\(error)"])
        }
    }
}

extension GenerationPool {
    /// The running jobs with the earliest submission, oldest first. A few comparisons per job.
    func longestRunning(_ count: Int) -> [RunningJob] {
        var longest: [(since: Int, generation: Generation)] = []
        for generation in generations.values where generation.stage != .ending {
            let since = generation.claim.submittedMilliseconds ?? generation.claim.claimedMilliseconds
            guard longest.count < count || since < (longest.last?.since ?? .max) else { continue }
            longest.insert((since, generation), at: longest.firstIndex { $0.since > since } ?? longest.count)
            if longest.count > count { longest.removeLast() }
        }
        return longest.map { since, generation in
            RunningJob(
                id: generation.id.rawValue, priority: generation.claim.entry.priority.rawValue, model: generation.claim.job.model ?? "",
                phase: generation.phase.rawValue, upstream: generation.upstreamName ?? "", attempt: generation.claim.attempt,
                tokens: generation.usage.completionTokens, submittedMilliseconds: since)
        }
    }
}
