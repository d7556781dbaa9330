import Contract
import Hummingbird
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient
import ServiceLifecycle
import Support
import Upstream

/// One worker process: claims jobs from Redis and runs them against the upstreams.
///
/// `run` returns after a drain (graceful shutdown). When its task is cancelled it closes all upstream connections and throws
/// `CancellationError` at once; the leases of the running jobs then expire.
package struct WorkerService: Service {
    private let settings: WorkerSettings
    private let queueSettings: QueueSettings
    private let redisURL: RedisURL
    private let redisSettings: RedisSettings
    private let logger: Logger
    /// Replaces the configured upstreams while the worker runs.
    package let upstreams = UpstreamsFeed()

    package init(settings: WorkerSettings, queueSettings: QueueSettings, redisURL: RedisURL, redisSettings: RedisSettings, logger: Logger) {
        self.settings = settings
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    /// Runs the worker until it is drained or cancelled.
    /// - Throws: `CancellationError` on cancellation; a `LoopError` when the upstream loop cannot be created; errors of the configured CA
    ///   and of the metrics listener.
    package func run() async throws {
        // All Redis connections share one event loop, so a claim and an interrupt that overtakes its reply are handled on the same
        // thread. Neither loop is stopped before the process ends: a task that resumes late from a Redis call still needs its executor.
        let loop = try EpollLoop(name: "upstream")
        loop.start()
        try await run(on: MultiThreadedEventLoopGroup.singleton.next(), loop)
    }

    /// Creates the Redis clients and the actors of the worker, and runs them until the drain is complete.
    private func run(on eventLoop: any EventLoop, _ loop: EpollLoop) async throws {
        let commands = RedisClient(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "commands", logger: logger)
        let blocking = RedisClient(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "claims", logger: logger)
        let subscriber = RedisSubscriber(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "cancel", logger: logger)
        let metrics = WorkerMetrics()
        let token = ULID(milliseconds: UInt64(clamping: WallClock.milliseconds)).description
        let consumer = JobConsumer(redis: commands, blocking: blocking, settings: queueSettings, worker: settings.name, token: token)
        let room = GenerationRoom(loop: loop, consumer: consumer)
        let clock: @Sendable () -> UInt64 = { loop.now }
        let claimer = Claimer(
            consumer: consumer, room: room, capacity: settings.concurrency, metrics: metrics, logger: logger, clock: clock)
        try await room.open(settings: settings, metrics: metrics, logger: logger) { _, entry in
            eventLoop.execute { claimer.assumeIsolated { $0.release(entry) } }
        }
        upstreams.connect { room.reload($0) }
        let drain = DrainSignal()
        let keeper = LeaseRenewer(
            consumer: consumer, room: room, claimer: claimer, capacity: settings.concurrency, metrics: metrics, logger: logger,
            clock: clock,
            drainAsked: { drain.begin() })
        let reporter = StatusReporter(
            consumer: consumer, room: room, claimer: claimer, capacity: settings.concurrency, started: WallClock.milliseconds,
            tally: metrics.tally, logger: logger, clock: clock, wallClock: { WallClock.milliseconds }, drain: drain)
        let listener = InterruptListener(
            subscriber: subscriber, consumer: consumer, claimer: claimer, room: room, metrics: metrics, logger: logger, clock: clock,
            mayHaveMissed: { Task { await keeper.renew() } }, jobsReturned: { Task { await claimer.takeOver() } })
        commands.onConnect {
            var load = RedisPipeline()
            for script in Scripts.ofWorker { load.append("SCRIPT", "LOAD", .string(script.source)) }
            // An optimization only: a script that is not loaded is sent in full when it is called.
            commands.send(load) { _ in }
        }
        let readiness: @Sendable () -> String? = {
            if drain.hasBegun { return "draining" }
            if !commands.isConnected || !blocking.isConnected { return "Redis is not reachable" }
            if !subscriber.isAlive { return "the cancel subscription is not alive" }
            return nil
        }
        let watch = EventLoopLagProbe(eventLoop: eventLoop, loop: loop, metrics: metrics).start()
        defer { watch.cancel() }
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { await commands.run() }
            tasks.addTask { await blocking.run() }
            tasks.addTask { await subscriber.run() }
            if let listen = settings.metricsListen {
                let endpoints = WorkerEndpoints(
                    host: listen.host, port: listen.port, readiness: readiness, metrics: settings.metricsText, logger: logger)
                tasks.addTask { try await endpoints.run() }
            }
            tasks.addTask {
                try await self.work(
                    consumer: consumer, room: room, claimer: claimer, keeper: keeper, reporter: reporter, listener: listener,
                    eventLoop: eventLoop, drain: drain)
                commands.shutdown()
                blocking.shutdown()
                subscriber.shutdown()
                throw Finished()
            }
            do {
                while try await tasks.next() != nil {}
            } catch is Finished {
                tasks.cancelAll()
            } catch {
                // Cancelled, or a service failed: the upstream connections are closed before anything else.
                await room.abandon()
                await claimer.stop()
                await keeper.stop()
                await reporter.stop()
                drain.begin()
                for client in [commands, blocking] { client.shutdown() }
                subscriber.shutdown()
                tasks.cancelAll()
                throw error
            }
        }
    }

    /// Ends the task group after a complete drain.
    private struct Finished: Error {}

    /// Claims and runs jobs until the drain is complete.
    private func work(
        consumer: JobConsumer, room: GenerationRoom, claimer: Claimer, keeper: LeaseRenewer, reporter: StatusReporter,
        listener: InterruptListener, eventLoop: any EventLoop, drain: DrainSignal
    ) async throws {
        try await withGracefulShutdownHandler {
            try await eventLoop.submit { listener.listen() }.get()
            guard try await createGroups(consumer, unless: drain) else { return }
            logger.info("worker takes jobs", metadata: ["worker": "\(settings.name)", "capacity": "\(settings.concurrency)"])
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask(executorPreference: consumer.redis.executor) { await claimer.run() }
                tasks.addTask(executorPreference: consumer.redis.executor) { await keeper.run() }
                tasks.addTask(executorPreference: consumer.redis.executor) { await reporter.run() }
                await drain.wait()
                try Task.checkCancellation()
                let inFlight = await claimer.inFlight
                logger.info("drain began", metadata: ["in_flight": "\(inFlight)", "timeout": "\(settings.drainTimeout)"])
                await keeper.drain()
                await claimer.stop()
                // Waits for the claimer first, so that no job starts after the drain has looked at the running ones.
                try await tasks.next()
                try await finishRunningJobs(room)
                await keeper.stop()
                await reporter.stop()
                try await tasks.waitForAll()
            }
            await deregister(consumer, reporter)
        } onGracefulShutdown: {
            drain.begin()
        }
        logger.info("drained")
    }

    /// Waits up to the drain timeout for running jobs, then hands the rest back. Jobs that cannot be handed back within 5 s are
    /// abandoned; their leases expire.
    private func finishRunningJobs(_ room: GenerationRoom) async throws {
        if await waitUntilEmpty(room, for: settings.drainTimeout) { return }
        try Task.checkCancellation()
        logger.info("drain timeout reached; handing back running jobs")
        await room.handBackAll()
        if await waitUntilEmpty(room, for: .seconds(5)) { return }
        try Task.checkCancellation()
        logger.warning("some jobs not handed back; other workers take them over when their leases expire")
        await room.abandon()
    }

    /// Creates the consumer groups, retrying every 200 ms until Redis accepts.
    /// - Returns: false when a drain began before the groups were created.
    private func createGroups(_ consumer: JobConsumer, unless drain: DrainSignal) async throws -> Bool {
        var errorLog = OnceLogger("Redis refuses to make consumer groups", over: "consumer groups are made")
        while !drain.hasBegun {
            do {
                try await consumer.createGroups()
                errorLog.recovered(logger)
                return true
            } catch {
                try Task.checkCancellation()
                // Redis is unreachable (its connection logs that once) or rejects the command. Claiming cannot work without the groups.
                if error.code == .server { errorLog.failed(error, logger) }
                try await Task.sleep(for: .milliseconds(200))
            }
        }
        return false
    }

    /// Removes the heartbeat and the consumer of this worker. Without Redis they expire or are swept later.
    private func deregister(_ consumer: JobConsumer, _ reporter: StatusReporter) async {
        guard consumer.redis.isConnected else { return }
        await reporter.forget()
        do { try await consumer.forgetConsumer(settings.name) } catch {
            logger.debug("consumer not removed; another worker sweeps it", metadata: ["error": "\(error)"])
        }
    }

    /// Waits until no job is running, for at most `limit`.
    /// - Returns: false when jobs were left at the limit, or the task was cancelled.
    private func waitUntilEmpty(_ room: GenerationRoom, for limit: Duration) async -> Bool {
        let empty = await Task { await room.waitUntilEmpty() }.ends(by: .now + limit)
        if !empty { await room.stopWaiting() }
        return empty
    }
}
