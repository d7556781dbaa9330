import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient
import Support

/// Runs the periodic work of a worker, every renewal interval: renews leases, which also returns interrupt keys, reads operator commands,
/// measures the queues, and looks for expired leases. Runs on the event loop of the Redis commands.
actor LeaseRenewer {
    /// Maximum jobs per call of the renew script, so that it does not block Redis for long.
    private static let renewedAtOnce = 100

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let consumer: JobConsumer
    private let room: GenerationRoom
    private let claimer: Claimer
    private let capacity: Int
    private let metrics: WorkerMetrics
    private let logger: Logger
    private let clock: @Sendable () -> UInt64
    private let drainAsked: @Sendable () -> Void

    private var draining = false
    private var stopped = false
    /// Send time of the last renewal that Redis answered, CLOCK_MONOTONIC ns.
    private var renewedAt: UInt64
    /// The jobs were already handed back because of missing renewals.
    private var expired = false
    private var renewing = false
    /// Another renewal was requested while one was running.
    private var renewAgain = false
    private var polling = false
    private var measuring = false
    private var sleeping: CheckedContinuation<Void, Never>?
    private var alarm: Scheduled<Void>?

    nonisolated var unownedExecutor: UnownedSerialExecutor { consumer.redis.executor.asUnownedSerialExecutor() }

    init(
        consumer: JobConsumer, room: GenerationRoom, claimer: Claimer, capacity: Int, metrics: WorkerMetrics, logger: Logger,
        clock: @escaping @Sendable () -> UInt64, drainAsked: @escaping @Sendable () -> Void
    ) {
        eventLoop = consumer.redis.eventLoop
        self.consumer = consumer
        self.room = room
        self.claimer = claimer
        self.capacity = capacity
        self.metrics = metrics
        self.logger = logger
        self.clock = clock
        self.drainAsked = drainAsked
        renewedAt = clock()
    }

    /// Runs the periodic work until `stop`.
    func run() async {
        let interval = TimeAmount(consumer.settings.beat)
        while !stopped {
            // Nothing here waits for Redis: an expired lease is detected by the clock, because a reply may never arrive.
            checkExpiry()
            Task { await self.renew() }
            Task { await self.pollOperatorCommands() }
            Task { await self.measure() }
            Task { await self.sweep() }
            Task { await self.claimer.takeOver() }
            await sleep(interval)
        }
    }

    func stop() {
        stopped = true
        alarm?.cancel()
        sleeping?.resume()
        sleeping = nil
    }

    /// Ignores further drain commands of operators.
    func drain() { draining = true }

    private func sleep(_ time: TimeAmount) async {
        guard !stopped else { return }
        await withCheckedContinuation { continuation in
            sleeping = continuation
            alarm = eventLoop.assumeIsolated().scheduleTask(in: time) { self.assumeIsolated { $0.wake() } }
        }
    }

    private func wake() {
        sleeping?.resume()
        sleeping = nil
    }

    /// Closes all upstreams when no renewal has succeeded for a whole lease: other workers may own the jobs by then.
    private func checkExpiry() {
        let silence = clock() &- renewedAt
        guard !expired, silence > consumer.settings.lease.timeoutNanoseconds else { return }
        expired = true
        logger.error(
            "no lease renewed for a whole lease time; closing upstreams, jobs are handed back when Redis responds",
            metadata: ["silent_ms": "\(silence / 1_000_000)"])
        Task { await self.room.handBackAll() }
    }

    /// Renews all leases and carries out the interrupts found with them. Also called after a resubscription. Concurrent calls are merged.
    func renew() async {
        guard !stopped else { return }
        guard !renewing else {
            renewAgain = true
            return
        }
        renewing = true
        repeat {
            renewAgain = false
            await renewOnce()
        } while renewAgain && !stopped
        renewing = false
    }

    /// Renews the leases by partition in groups; without running jobs only checks that Redis responds.
    private func renewOnce() async {
        let sentAt = clock()
        let renewals = await room.renewals()
        do {
            for (_, group) in Dictionary(grouping: renewals, by: \.entry.partition) {
                for start in stride(from: 0, to: group.count, by: Self.renewedAtOnce) {
                    let some = Array(group[start..<min(start + Self.renewedAtOnce, group.count)])
                    let answers = try await consumer.renew(some)
                    metrics.leasesRenewed.increment(by: answers.count { $0 == .kept })
                    await room.apply(Array(zip(some, answers)))
                }
            }
            if renewals.isEmpty { _ = try await consumer.redis.send("PING") }
            renewedAt = sentAt
            expired = false
        } catch {
            logger.debug("lease renewal failed", metadata: ["error": "\(error)", "jobs": "\(renewals.count)"])
        }
    }

    /// Reads the drain command and the paused classes that operators have set.
    private func pollOperatorCommands() async {
        guard !polling, !stopped else { return }
        polling = true
        defer { polling = false }
        do {
            let requests = try await consumer.operatorRequests()
            if requests.isDrainRequested, !draining {
                logger.info("an operator asked this worker to drain")
                drainAsked()
            }
            // Nil when the key has another type: the current pauses stay in effect.
            if let paused = requests.pausedClasses { await claimer.pauseClasses(paused) }
        } catch {
            logger.debug("operator commands could not be read", metadata: ["error": "\(error)"])
        }
    }

    /// Updates the queue gauges, which autoscaling uses: one script per partition and renewal interval.
    private func measure() async {
        guard !measuring, !stopped else { return }
        measuring = true
        defer { measuring = false }
        let inFlight = await claimer.inFlight
        do {
            let depth = try await consumer.depth()
            metrics.show(depth, capacity: capacity, inFlight: inFlight)
        } catch {
            logger.debug("queue depth could not be read", metadata: ["error": "\(error)"])
        }
    }

    /// Removes consumers of dead workers; at most one worker does so at a time.
    private func sweep() async {
        do {
            let swept = try await consumer.sweepConsumers()
            if !swept.isEmpty { logger.info("removed consumers of dead workers", metadata: ["consumers": "\(swept.count)"]) }
        } catch {
            logger.debug("consumer sweep failed", metadata: ["error": "\(error)"])
        }
    }
}
