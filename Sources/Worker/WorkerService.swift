import Contract
import Hummingbird
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient
import ServiceLifecycle
import Upstream

/// One worker. `run` returns after a drain (graceful shutdown), or throws `CancellationError` at once when its task is cancelled: then
/// upstreams are closed and the leases of what ran expire.
package struct WorkerService: Service {
    private let settings: WorkerSettings
    private let queueSettings: QueueSettings
    private let redisURL: RedisURL
    private let redisSettings: RedisSettings
    private let logger: Logger
    /// Where other upstreams come in while the worker runs.
    package let upstreams = UpstreamsFeed()

    package init(settings: WorkerSettings, queueSettings: QueueSettings, redisURL: RedisURL, redisSettings: RedisSettings, logger: Logger) {
        self.settings = settings
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    package func run() async throws {
        // One loop for all Redis connections: a claim and the interrupt that overtakes it meet on it. Neither loop is stopped before the
        // process ends: a task that comes back late from Redis would find no executor.
        let loop = try EpollLoop(name: "upstream")
        loop.start()
        try await run(on: MultiThreadedEventLoopGroup.singleton.next(), loop)
    }

    private func run(on eventLoop: any EventLoop, _ loop: EpollLoop) async throws {
        let commands = RedisClient(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "commands", logger: logger)
        let blocking = RedisClient(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "claims", logger: logger)
        let subscriber = RedisSubscriber(url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "cancel", logger: logger)
        let metrics = WorkerMetrics()
        let token = ULID(milliseconds: Self.wallMilliseconds).description
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
        let keeper = LeaseKeeper(
            consumer: consumer, room: room, claimer: claimer, capacity: settings.concurrency, metrics: metrics, logger: logger,
            clock: clock,
            drainAsked: { drain.begin() })
        let reporter = StatusReporter(
            consumer: consumer, room: room, claimer: claimer, capacity: settings.concurrency, started: Int(Self.wallMilliseconds),
            tally: metrics.tally, logger: logger, clock: clock, wallClock: { Int(Self.wallMilliseconds) }, drain: drain)
        let listener = InterruptListener(
            subscriber: subscriber, consumer: consumer, claimer: claimer, room: room, metrics: metrics, logger: logger, clock: clock,
            mayHaveMissed: { Task { await keeper.renew() } }, jobsReturned: { Task { await claimer.takeOver() } })
        commands.onConnect {
            var load = RedisPipeline()
            for script in Scripts.ofWorker { load.append("SCRIPT", "LOAD", .string(script.source)) }
            // Only a saving: a script that is missing is sent whole when it is called.
            commands.send(load) { _ in }
        }
        let readiness: @Sendable () -> String? = {
            if drain.hasBegun { return "draining" }
            if !commands.isConnected || !blocking.isConnected { return "Redis is not reachable" }
            if !subscriber.isAlive { return "the cancel subscription is not alive" }
            return nil
        }
        let watch = LoopWatch(eventLoop: eventLoop, loop: loop, metrics: metrics).start()
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
                // Stopped at once, or unable to go on: what runs upstream is closed before anything else.
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

    private struct Finished: Error {}

    /// From the first claim to the end of the drain.
    private func work(
        consumer: JobConsumer, room: GenerationRoom, claimer: Claimer, keeper: LeaseKeeper, reporter: StatusReporter,
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
                // The claimer's end is awaited first, so that nothing is begun behind the drain's back.
                try await tasks.next()
                try await empty(room)
                await keeper.stop()
                await reporter.stop()
                try await tasks.waitForAll()
            }
            await forget(consumer, reporter)
        } onGracefulShutdown: {
            drain.begin()
        }
        logger.info("drained")
    }

    /// Lets what runs end within the drain's time, and hands the rest back.
    private func empty(_ room: GenerationRoom) async throws {
        if await waitUntilEmpty(room, for: settings.drainTimeout) { return }
        try Task.checkCancellation()
        logger.info("drain timeout; running jobs are handed back")
        await room.handBackAll()
        if await waitUntilEmpty(room, for: .seconds(5)) { return }
        try Task.checkCancellation()
        logger.warning("some jobs could not be handed back; their leases expire")
        await room.abandon()
    }

    /// - Returns: false when a drain began before Redis could be reached.
    private func createGroups(_ consumer: JobConsumer, unless drain: DrainSignal) async throws -> Bool {
        var complaint = Complaint("Redis refuses to make consumer groups", over: "consumer groups are made")
        while !drain.hasBegun {
            do {
                try await consumer.createGroups()
                complaint.settle(logger)
                return true
            } catch {
                try Task.checkCancellation()
                // Redis is away (said once by its connection) or refuses; claiming makes no sense before.
                if error.code == .server { complaint.raise(error, logger) }
                try await Task.sleep(for: .milliseconds(200))
            }
        }
        return false
    }

    /// What a clean end takes back; without Redis it expires by itself.
    private func forget(_ consumer: JobConsumer, _ reporter: StatusReporter) async {
        guard consumer.redis.isConnected else { return }
        await reporter.forget()
        do { try await consumer.forgetConsumer(settings.name) } catch {
            logger.debug("the consumer could not be removed", metadata: ["error": "\(error)"])
        }
    }

    /// - Returns: false when jobs were left at the limit, or the task was cancelled.
    private func waitUntilEmpty(_ room: GenerationRoom, for limit: Duration) async -> Bool {
        await withTaskGroup(of: Bool.self) { tasks in
            tasks.addTask {
                await room.waitUntilEmpty()
                return true
            }
            tasks.addTask {
                try? await Task.sleep(for: limit)
                return false
            }
            let empty = await tasks.next() ?? true
            if !empty { await room.stopWaiting() }
            tasks.cancelAll()
            return empty
        }
    }

    private static var wallMilliseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }
}
