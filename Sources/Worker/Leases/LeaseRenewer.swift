import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import Support

/// Runs the periodic work of a worker, every renewal interval: renews leases, which also returns interrupt keys, writes the heartbeat, reads
/// operator commands, measures the queues, and looks for expired leases. What is sent in one round is sent together, because waking Redis costs
/// more than most commands. Runs on the event loop of the Redis connections.
actor LeaseRenewer: PinnedActor {
    /// Maximum jobs per call of `JobConsumer.validate`, so that the script does not block Redis for long: up to 1 ms.
    private static let renewedAtOnce = 50

    private nonisolated let consumer: JobConsumer
    private let pool: GenerationPool
    private let claimer: Claimer
    private let reporter: StatusReporter
    private let capacity: Int
    private let metrics: WorkerMetrics
    private let logger: Logger
    private let clock: @Sendable () -> UInt64
    private let drainRequested: @Sendable () -> Void
    private nonisolated let rounds: RoundTimer

    private var isDraining = false
    /// By partition: send time of the last renewal that Redis answered, CLOCK_MONOTONIC ns. In a cluster a server that is not reachable
    /// concerns its partitions alone.
    private var renewedAt: [UInt64]
    /// By partition: send time of the last renewal that also claimed the entries, see `JobConsumer.validate`, and the number of its connection.
    private var claimed: [(at: UInt64, connection: Int)]
    /// Time in ns after which a renewal claims the entries again: every second one does, as three are a lease.
    private let claimInterval: UInt64
    /// The partitions whose jobs were already handed back because of missing renewals.
    private var expired: Set<Int> = []
    private var isRenewing = false
    /// Another renewal was requested while one was running.
    private var renewAgain = false
    private var isPolling = false
    /// Operator commands were announced while they were being read.
    private var pollAgain = false
    private var isMeasuring = false
    /// The last measurement of the queues, and the renewal intervals since then.
    private var measured: (depth: QueueDepth, intervals: Int)?

    nonisolated var executor: QueueExecutor { consumer.executor }

    /// - Parameters:
    ///   - clock: CLOCK_MONOTONIC ns.
    ///   - drainRequested: called when an operator has requested a drain; possibly repeatedly.
    init(
        consumer: JobConsumer, pool: GenerationPool, claimer: Claimer, reporter: StatusReporter, capacity: Int, metrics: WorkerMetrics,
        logger: Logger, clock: @escaping @Sendable () -> UInt64, drainRequested: @escaping @Sendable () -> Void
    ) {
        self.consumer = consumer
        self.pool = pool
        self.claimer = claimer
        self.reporter = reporter
        self.capacity = capacity
        self.metrics = metrics
        self.logger = logger
        self.clock = clock
        self.drainRequested = drainRequested
        rounds = RoundTimer(consumer.eventLoop)
        renewedAt = Array(repeating: clock(), count: consumer.partitions)
        claimed = Array(repeating: (clock(), 0), count: consumer.partitions)
        claimInterval = consumer.settings.lease.timeoutNanoseconds / 2
    }

    /// Runs the periodic work until `stop`.
    func run() async {
        while !rounds.isStopped {
            // Nothing here waits for Redis: an expired lease is detected by the clock, because a reply may never arrive.
            checkExpiry()
            Task { await self.renew() }
            Task { await self.reporter.beat() }
            Task { await self.pool.renewLimits() }
            Task { await self.pollOperatorCommands() }
            Task { await self.measure() }
            Task { await self.sweep() }
            Task { await self.claimer.takeOver(self.claimer.allPartitions) }
            Task { await self.claimer.endInterrupted() }
            await rounds.wait(for: consumer.nextRenewal - .now())
        }
    }

    nonisolated func stop() { rounds.stop() }

    /// Ignores further drain commands of operators.
    func drain() { isDraining = true }

    /// Closes the upstreams of a partition's jobs when no renewal has succeeded there for a whole lease: other workers may own the jobs by
    /// then.
    private func checkExpiry() {
        let (now, lease) = (clock(), consumer.settings.lease.timeoutNanoseconds)
        let silent = Set(renewedAt.indices.filter { now &- renewedAt[$0] > lease })
        let new = silent.subtracting(expired)
        expired = silent
        guard let silence = new.map({ now &- renewedAt[$0] }).max() else { return }
        logger.error(
            "no lease renewed for a whole lease time; closing upstreams, jobs are handed back when Redis responds",
            metadata: ["silent_ms": "\(silence / 1_000_000)", "partitions": "\(new.count)"])
        Task { await self.pool.handBack(partitions: new) }
    }

    /// Renews all leases, carries out the interrupts found with them, and compares the jobs with what Redis holds. Also called after a
    /// resubscription and a reconnect. Concurrent calls are merged.
    func renew() async {
        guard !rounds.isStopped else { return }
        guard !isRenewing else {
            renewAgain = true
            return
        }
        isRenewing = true
        repeat {
            renewAgain = false
            await renewOnce()
        } while renewAgain && !rounds.isStopped
        isRenewing = false
    }

    /// Renews the leases by partition; without running jobs only checks that Redis responds.
    private func renewOnce() async {
        let sentAt = clock()
        // Before the jobs are listed: what they had written by then is compared with the server of this connection or a later one.
        let connections = renewedAt.indices.map { consumer.connections(partition: $0) }
        let groups = Dictionary(grouping: await pool.renewals(), by: \.entry.partition)
        guard !groups.isEmpty || consumer.isCluster else {
            do {
                try await consumer.ping()
                for partition in renewedAt.indices { renewed(partition, sentAt) }
            } catch {
                logger.debug("Redis does not respond", metadata: ["error": "\(error)"])
            }
            return
        }
        // There is no lease that could expire.
        for partition in renewedAt.indices where groups[partition] == nil { renewed(partition, sentAt) }
        guard consumer.isCluster else {
            for (partition, group) in groups {
                await renew(group, partition: partition, connection: connections[partition], sentAt: sentAt)
            }
            return
        }
        // A server that does not respond must not delay the others.
        await withDiscardingTaskGroup { tasks in
            for (partition, group) in groups {
                tasks.addTask(executorPreference: consumer.executor) {
                    await self.renew(group, partition: partition, connection: connections[partition], sentAt: sentAt)
                }
            }
        }
    }

    /// Renews the leases of one partition's jobs.
    /// - Parameter connection: the number of the partition's connection before the jobs were listed.
    private func renew(_ renewals: [LeaseRenewal], partition: Int, connection: Int, sentAt: UInt64) async {
        let claimsEntries = connection != claimed[partition].connection || sentAt &- claimed[partition].at > claimInterval
        do {
            var others = renewals.filter { !$0.isQuiet }
            for some in JobConsumer.quietParts(renewals.filter(\.isQuiet)) {
                let reports = try await consumer.renewQuiet(some, claimsEntries: claimsEntries)
                others += zip(some, reports).filter { $0.1 == nil }.map(\.0)
                await apply(zip(some, reports).compactMap { renewal, report in report.map { (renewal, $0) } }, connection)
            }
            for some in others.split(into: Self.renewedAtOnce) {
                let reports = try await consumer.validate(some, claimsEntries: claimsEntries)
                await apply(Array(zip(some, reports)), connection)
            }
            renewed(partition, sentAt)
            if claimsEntries { claimed[partition] = (sentAt, connection) }
        } catch {
            logger.debug("lease renewal failed", metadata: ["error": "\(error)", "jobs": "\(renewals.count)"])
        }
    }

    private func apply(_ reports: [(LeaseRenewal, LeaseReport)], _ connection: Int) async {
        metrics.leasesRenewed.increment(by: reports.count { $0.1.answer == .kept })
        await pool.apply(reports, connection: connection)
    }

    private func renewed(_ partition: Int, _ sentAt: UInt64) {
        renewedAt[partition] = sentAt
        expired.remove(partition)
    }

    /// Reads the drain command and the paused classes that operators have set. Also called when an operator has announced a command.
    /// Concurrent calls are merged.
    func pollOperatorCommands() async {
        guard !rounds.isStopped else { return }
        guard !isPolling else {
            pollAgain = true
            return
        }
        isPolling = true
        repeat {
            pollAgain = false
            await pollOnce()
        } while pollAgain && !rounds.isStopped
        isPolling = false
    }

    private func pollOnce() async {
        do {
            let requests = try await consumer.operatorRequests()
            if requests.isDrainRequested, !isDraining {
                logger.info("drain requested by an operator")
                drainRequested()
            }
            // Nil when the key has another type: the current pauses stay in effect.
            if let paused = requests.pausedClasses { await claimer.pauseClasses(paused) }
        } catch {
            logger.debug("operator commands could not be read", metadata: ["error": "\(error)"])
        }
    }

    /// Updates the queue gauges, which autoscaling uses, each renewal interval. With many partitions they are not measured again while there are
    /// no jobs; the number of dead letters, which operators may change then, may be late by 5 s per partition.
    private func measure() async {
        guard !isMeasuring, !rounds.isStopped else { return }
        isMeasuring = true
        defer { isMeasuring = false }
        let inFlight = await claimer.inFlight
        if let (depth, intervals) = measured, depth.entries == 0, consumer.partitions > JobConsumer.visitedPartitions,
            consumer.settings.renewalInterval * intervals < .seconds(5) * consumer.partitions, await claimer.seesNoJobs
        {
            measured?.intervals += 1
            return metrics.show(depth, capacity: capacity, inFlight: inFlight)
        }
        do {
            let depth = try await consumer.sharedDepth()
            measured = (depth, 1)
            metrics.show(depth, capacity: capacity, inFlight: inFlight)
        } catch {
            logger.debug("queue depth could not be read", metadata: ["error": "\(error)"])
        }
    }

    /// Looks for entries without a lease and removes consumers of dead workers. One worker does so per lease.
    private func sweep() async {
        do {
            guard let walk = try await consumer.walkPending() else { return }
            if walk.added + walk.sorted > 0 {
                logger.info(
                    "found pending entries that were not in the indexes",
                    metadata: ["expired": "\(walk.added)", "waiting": "\(walk.sorted)"])
                await claimer.takeOver(claimer.allPartitions)
            }
            let swept = try await consumer.sweepConsumers()
            if !swept.removed.isEmpty {
                logger.info("removed consumers of dead workers", metadata: ["consumers": "\(swept.removed.count)"])
            }
            if swept.restored > 0 {
                logger.warning("restored queue entries whose consumer had been deleted", metadata: ["entries": "\(swept.restored)"])
            }
        } catch {
            logger.debug("consumer sweep failed", metadata: ["error": "\(error)"])
        }
    }
}

extension Array {
    /// Consecutive parts of at most `size` elements.
    fileprivate func split(into size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}
