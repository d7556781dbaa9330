import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient
import Support

/// Writes the heartbeat of this worker to Redis once per second, with the figures that operator tools show. Runs on the event loop of the
/// Redis commands.
actor StatusReporter {
    private static let period = Duration.seconds(1)

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let consumer: JobConsumer
    private let room: GenerationRoom
    private let claimer: Claimer
    private let heartbeat: NodeHeartbeat
    private let capacity: Int
    /// Milliseconds since 1970.
    private let started: Int
    private let tally: WorkerTally
    private let logger: Logger
    private let clock: @Sendable () -> UInt64
    /// Milliseconds since 1970.
    private let wallClock: @Sendable () -> Int
    private let drain: DrainSignal

    private var window = ReportWindow()
    private var stopped = false
    private var sleeping: CheckedContinuation<Void, Never>?
    private var alarm: Scheduled<Void>?

    nonisolated var unownedExecutor: UnownedSerialExecutor { consumer.redis.executor.asUnownedSerialExecutor() }

    init(
        consumer: JobConsumer, room: GenerationRoom, claimer: Claimer, capacity: Int, started: Int, tally: WorkerTally, logger: Logger,
        clock: @escaping @Sendable () -> UInt64, wallClock: @escaping @Sendable () -> Int, drain: DrainSignal
    ) {
        eventLoop = consumer.redis.eventLoop
        self.consumer = consumer
        self.room = room
        self.claimer = claimer
        self.capacity = capacity
        self.started = started
        self.tally = tally
        self.logger = logger
        self.clock = clock
        self.wallClock = wallClock
        self.drain = drain
        heartbeat = NodeHeartbeat(.worker, name: consumer.worker, keys: consumer.keys, lease: consumer.settings.lease)
    }

    /// Writes heartbeats until `stop`.
    func run() async {
        let period = min(Self.period, consumer.settings.beat)
        while !stopped {
            await writeHeartbeat()
            guard !stopped else { return }
            await withCheckedContinuation { continuation in
                sleeping = continuation
                alarm = eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(period)) { self.assumeIsolated { $0.wake() } }
            }
        }
    }

    func stop() {
        stopped = true
        alarm?.cancel()
        wake()
    }

    private func wake() {
        sleeping?.resume()
        sleeping = nil
    }

    /// Writes one heartbeat; a failure is logged at level debug and the next one tries again.
    private func writeHeartbeat() async {
        var report = tally.report
        report.slowest = await room.longestRunning(WorkerReport.slowestCount)
        report.inFlight = await claimer.inFlight
        report.capacity = capacity
        report.isDraining = drain.hasBegun
        report.version = BuildInformation.version
        report.startedMilliseconds = started
        var pipeline = RedisPipeline()
        heartbeat.append(window.lately(report, at: clock()).fields, to: &pipeline)
        consumer.listWorker(in: &pipeline, now: wallClock())
        do { _ = try await consumer.redis.send(pipeline) } catch {
            logger.debug("heartbeat not written", metadata: ["error": "\(error)"])
        }
    }

    /// Removes the heartbeat after a drain, so that the worker is no longer listed.
    func forget() async {
        var pipeline = RedisPipeline()
        pipeline.append("DEL", .string(heartbeat.key), .string(consumer.keys.drain(consumer.worker)))
        pipeline.append("ZREM", .string(consumer.keys.workers), .string(consumer.worker))
        do { _ = try await consumer.redis.send(pipeline) } catch {
            logger.debug("heartbeat not removed; it expires by itself", metadata: ["error": "\(error)"])
        }
    }
}

extension GenerationRoom {
    /// The running jobs with the earliest submission, oldest first. Runs on the upstream loop; a few comparisons per job.
    func longestRunning(_ count: Int) -> [RunningJob] {
        var longest: [(since: Int, generation: Generation)] = []
        for generation in core.map({ Array($0.generations.values) }) ?? [] where generation.ending == nil {
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
