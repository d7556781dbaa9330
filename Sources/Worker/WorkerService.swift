import Contract
import CurlTransport
import Hummingbird
import JobQueue
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import ServiceLifecycle
import Support
import Synchronization
import Upstream

/// One worker process: claims jobs from Redis and runs them against the upstreams.
///
/// `run` returns after a drain (graceful shutdown). When its task is cancelled it closes all upstream connections and throws
/// `CancellationError` at once; the leases of the running jobs then expire.
package struct WorkerService: Service {
    private let settings: WorkerSettings
    private let queueSettings: QueueSettings
    private let redisURL: ConsumerConnections.ServerURL
    private let redisSettings: ConsumerConnections.ServerSettings
    private let logger: Logger
    /// Replaces the configured upstreams while the worker runs.
    package let upstreams = UpstreamsFeed()
    /// The receivers of webhooks, which may be replaced while the worker runs.
    package let webhookTargets: WebhookTargets

    package init(
        settings: WorkerSettings, queueSettings: QueueSettings, redisURL: ConsumerConnections.ServerURL,
        redisSettings: ConsumerConnections.ServerSettings, logger: Logger
    ) {
        self.settings = settings
        webhookTargets = WebhookTargets(settings.webhooks)
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    /// Runs the worker until it is drained or cancelled.
    /// - Throws: `CancellationError` on cancellation; a `LoopError` when the upstream loop cannot be created; errors of the configured CA
    ///   and of the metrics listener.
    package func run() async throws {
        // Neither loop is stopped before the process ends: a task that resumes late from a Redis call still needs its executor.
        let loop = try EpollLoop(name: "upstream")
        loop.start()
        try await run(on: MultiThreadedEventLoopGroup.singleton.next(), loop)
    }

    /// The actors of a running worker.
    private struct Parts {
        let consumer: JobConsumer
        let pool: GenerationPool
        let claimer: Claimer
        let renewer: LeaseRenewer
        let reporter: StatusReporter
        let listener: InterruptListener
        let webhooks: WebhookSender
        let drain = DrainSignal()

        init(
            consumer: JobConsumer, loop: EpollLoop, settings: WorkerSettings, targets: WebhookTargets, metrics: WorkerMetrics,
            logger: Logger
        ) throws {
            self.consumer = consumer
            pool = try GenerationPool(loop: loop, consumer: consumer, settings: settings, metrics: metrics, logger: logger)
            let clock: @Sendable () -> UInt64 = { loop.now }
            claimer = Claimer(
                consumer: consumer, pool: pool, capacity: settings.concurrency, metrics: metrics, logger: logger, clock: clock)
            reporter = StatusReporter(
                consumer: consumer, pool: pool, claimer: claimer, capacity: settings.concurrency, tally: metrics.tally, logger: logger,
                clock: clock, drain: drain)
            renewer = LeaseRenewer(
                consumer: consumer, pool: pool, claimer: claimer, reporter: reporter, capacity: settings.concurrency, metrics: metrics,
                logger: logger, clock: clock, drainRequested: { [drain] in drain.begin() })
            webhooks = WebhookSender(
                consumer: consumer, targets: targets, patience: settings.webhooks.patience,
                client: try WebhookClient(loop: loop, settings: settings.webhooks),
                workers: { [reporter] in reporter.workers.load(ordering: .relaxed) }, logger: logger)
            listener = InterruptListener(claimer: claimer, pool: pool, renewer: renewer, metrics: metrics, logger: logger)
        }
    }

    /// Creates the Redis connections and the actors of the worker, and runs them until the drain is complete.
    private func run(on eventLoop: any EventLoop, _ loop: EpollLoop) async throws {
        let connections = ConsumerConnections(
            url: redisURL, settings: redisSettings, keys: queueSettings.keys, eventLoop: eventLoop, logger: logger)
        let metrics = WorkerMetrics()
        let token = ULID(milliseconds: UInt64(clamping: WallClock.milliseconds)).description
        let consumer = JobConsumer(connections: connections, settings: queueSettings, worker: settings.name, token: token)
        let parts = try Parts(
            consumer: consumer, loop: loop, settings: settings, targets: webhookTargets, metrics: metrics, logger: logger)
        parts.reporter.serve(settings.upstreams)
        upstreams.connect {
            parts.pool.reload($0)
            parts.reporter.serve($0)
        }
        let probe = EventLoopLagProbe(eventLoop: eventLoop, loop: loop, metrics: metrics).start()
        defer { probe.cancel() }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { await connections.run() }
            if let listen = settings.metricsListen {
                let endpoints = WorkerEndpoints(
                    host: listen.host, port: listen.port,
                    readiness: { [drain = parts.drain, writes = parts.reporter.writes] in
                        drain.hasBegun ? "draining" : connections.fault ?? writes.problem
                    }, metrics: settings.metricsText, logger: logger)
                tasks.addTask { try await endpoints.run() }
            }
            tasks.addTask {
                try await self.work(parts, connections, eventLoop)
                connections.shutdown()
                throw Finished()
            }
            do {
                while try await tasks.next() != nil {}
            } catch is Finished {
                tasks.cancelAll()
            } catch {
                // Cancelled, or a service failed: the upstream connections are closed before anything else.
                await parts.pool.abandon()
                await parts.claimer.stop()
                parts.renewer.stop()
                parts.reporter.stop()
                parts.webhooks.stop()
                parts.drain.begin()
                connections.shutdown()
                tasks.cancelAll()
                throw error
            }
        }
    }

    /// Ends the task group after a complete drain.
    private struct Finished: Error {}

    /// Claims and runs jobs until the drain is complete.
    private func work(_ parts: Parts, _ connections: ConsumerConnections, _ eventLoop: any EventLoop) async throws {
        let (consumer, pool, drain) = (parts.consumer, parts.pool, parts.drain)
        try await withGracefulShutdownHandler {
            let listener = parts.listener
            try await eventLoop.submit { [keys = queueSettings.keys, name = settings.name] in
                connections.subscribe(keys: keys, worker: name) { listener.received($0) }
            }.get()
            guard try await createGroups(consumer, unless: drain) else { return }
            // Redis may have come back with older data.
            consumer.onConnect { [renewer = parts.renewer, claimer = parts.claimer, reporter = parts.reporter] in
                Task {
                    await reporter.reconnected()
                    await claimer.readEnded()
                    await renewer.renew()
                }
            }
            logger.info("worker ready", metadata: ["worker": "\(settings.name)", "capacity": "\(settings.concurrency)"])
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask(executorPreference: consumer.executor) { await parts.claimer.run() }
                tasks.addTask(executorPreference: consumer.executor) { await parts.renewer.run() }
                tasks.addTask(executorPreference: consumer.executor) { await parts.reporter.run() }
                tasks.addTask(executorPreference: consumer.executor) { await parts.webhooks.run() }
                await drain.wait()
                try Task.checkCancellation()
                let inFlight = await parts.claimer.inFlight
                logger.info("drain began", metadata: ["in_flight": "\(inFlight)", "timeout": "\(settings.drainTimeout)"])
                await parts.renewer.drain()
                await parts.claimer.stop()
                // Waits for the claimer first, so that no job starts after the drain has looked at the running ones.
                try await tasks.next()
                // A job whose claim is in progress would start after the drain. A claim ends within a lease, also without Redis.
                await parts.claimer.waitForClaims()
                try await finishRunningJobs(pool)
                parts.renewer.stop()
                parts.reporter.stop()
                parts.webhooks.stop()
                try await tasks.waitForAll()
            }
            await deregister(consumer, parts.reporter)
        } onGracefulShutdown: {
            drain.begin()
        }
        logger.info("drained")
    }

    /// Waits up to the drain timeout for running jobs, then hands the rest back. Jobs that cannot be handed back within 5 s are
    /// abandoned; their leases expire.
    private func finishRunningJobs(_ pool: GenerationPool) async throws {
        if await waitUntilEmpty(pool, for: settings.drainTimeout) { return }
        try Task.checkCancellation()
        logger.info("drain timeout reached; handing back running jobs")
        await pool.handBackAll()
        if await waitUntilEmpty(pool, for: .seconds(5)) { return }
        try Task.checkCancellation()
        logger.warning("some jobs not handed back; other workers take them over when their leases expire")
        await pool.abandon()
    }

    /// Creates the consumer groups, retrying every 200 ms until Redis accepts.
    /// - Returns: false when a drain began before the groups were created.
    private func createGroups(_ consumer: JobConsumer, unless drain: DrainSignal) async throws -> Bool {
        var errorLog = OnceLogger("consumer group creation rejected by Redis", over: "consumer groups created")
        while !drain.hasBegun {
            do {
                try await consumer.createGroups()
                errorLog.recovered(logger)
                return true
            } catch {
                try Task.checkCancellation()
                // Redis is unreachable (its connection logs that once) or rejects the command. Claiming cannot work without the groups.
                if error.isRejection { errorLog.failed(error, logger) }
                try await Task.sleep(for: .milliseconds(200))
            }
        }
        return false
    }

    /// Removes the heartbeat and the consumer of this worker. Without Redis they expire or are swept later.
    private func deregister(_ consumer: JobConsumer, _ reporter: StatusReporter) async {
        guard consumer.isConnected else { return }
        await reporter.removeHeartbeat()
        do { try await consumer.forgetConsumer(settings.name) } catch {
            logger.debug("failed to delete the consumer; another worker deletes it", metadata: ["error": "\(error)"])
        }
    }

    /// Waits until no job is running, for at most `limit`.
    /// - Returns: false when jobs were left at the limit, or the task was cancelled.
    private func waitUntilEmpty(_ pool: GenerationPool, for limit: Duration) async -> Bool {
        let empty = await Task { await pool.waitUntilEmpty() }.ends(by: .now + limit)
        if !empty { await pool.stopWaiting() }
        return empty
    }
}

/// Passes reloaded upstream configurations to a running worker. Thread-safe.
package final class UpstreamsFeed: Sendable {
    private struct State {
        var handler: (@Sendable ([UpstreamConfiguration]) -> Void)?
        /// Replaced before `connect`; passed on then.
        var waiting: [UpstreamConfiguration]?
    }

    private let state = NIOLockedValueBox(State())

    /// Replaces the upstreams for jobs that start from now on. Callable on any thread.
    package func replace(_ upstreams: [UpstreamConfiguration]) {
        let handler = state.withLockedValue { state in
            if state.handler == nil { state.waiting = upstreams }
            return state.handler
        }
        handler?(upstreams)
    }

    /// Sets the handler of replacements. It is called on the thread of `replace`, or at once if a replacement is already waiting.
    func connect(_ handler: @escaping @Sendable ([UpstreamConfiguration]) -> Void) {
        let waiting = state.withLockedValue { state in
            state.handler = handler
            defer { state.waiting = nil }
            return state.waiting
        }
        if let waiting { handler(waiting) }
    }
}
