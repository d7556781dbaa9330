import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient

/// The worker's beat: renews leases, reads durable interrupts and operators' wishes, looks for lost workers' jobs.
actor LeaseKeeper {
    /// Jobs in one call of the renew script, so that Redis is not held up.
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
    /// When the newest renewal that Redis answered was sent.
    private var renewedAt: UInt64
    private var expired = false
    private var renewing = false
    private var renewAgain = false
    private var hearing = false
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

    /// Beats until `stop`.
    func run() async {
        let beat = TimeAmount.nanoseconds(Self.nanoseconds(consumer.settings.beat))
        while !stopped {
            // Nothing here waits for Redis: a lease that is over unrenewed is noticed by the clock, not by an answer that may never come.
            checkExpiry()
            Task { await self.renew() }
            Task { await self.hearWishes() }
            Task { await self.measure() }
            Task { await self.sweep() }
            Task { await self.claimer.takeOver() }
            await sleep(beat)
        }
    }

    func stop() {
        stopped = true
        alarm?.cancel()
        sleeping?.resume()
        sleeping = nil
    }

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

    private func checkExpiry() {
        let silent = clock() &- renewedAt
        guard !expired, silent > UInt64(Self.nanoseconds(consumer.settings.lease)) else { return }
        expired = true
        logger.error(
            "no lease could be renewed for a whole lease: upstreams are closed and the jobs handed back when Redis answers",
            metadata: ["silent_ms": "\(silent / 1_000_000)"])
        Task { await self.room.handBackAll() }
    }

    /// Renews all leases and carries out the durable interrupts found with them. Also called when a subscription is back.
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
            logger.debug("leases could not be renewed", metadata: ["error": "\(error)", "jobs": "\(renewals.count)"])
        }
    }

    /// What operators want of this worker.
    private func hearWishes() async {
        guard !hearing, !stopped else { return }
        hearing = true
        defer { hearing = false }
        do {
            let requests = try await consumer.operatorRequests()
            if requests.isDrainRequested, !draining {
                logger.info("an operator asked this worker to drain")
                drainAsked()
            }
            // A key that is no set changes nothing: what was paused stays so.
            if let paused = requests.pausedClasses { await claimer.pauseClasses(paused) }
        } catch {
            logger.debug("operators' wishes could not be read", metadata: ["error": "\(error)"])
        }
    }

    /// What the queues hold, for whoever scales workers: one script a partition and beat.
    private func measure() async {
        guard !measuring, !stopped else { return }
        measuring = true
        defer { measuring = false }
        let inFlight = await claimer.inFlight
        do {
            let depth = try await consumer.depth()
            metrics.show(depth, capacity: capacity, inFlight: inFlight)
        } catch {
            logger.debug("the queues could not be measured", metadata: ["error": "\(error)"])
        }
    }

    private func sweep() async {
        do {
            let swept = try await consumer.sweepConsumers()
            if !swept.isEmpty { logger.info("consumers of workers that died were removed", metadata: ["consumers": "\(swept.count)"]) }
        } catch {
            logger.debug("dead workers' consumers could not be looked for", metadata: ["error": "\(error)"])
        }
    }

    private static func nanoseconds(_ duration: Duration) -> Int64 {
        duration.components.seconds * 1_000_000_000 + duration.components.attoseconds / 1_000_000_000
    }
}
