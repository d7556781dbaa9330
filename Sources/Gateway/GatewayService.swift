import Hummingbird
import HummingbirdCore
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient
import ServiceLifecycle
import UnixSignals

/// A gateway as a service: graceful shutdown drains it, cancellation stops it at once.
package struct GatewayService: Service {
    /// How long HTTP requests that are still running at the end of a drain get to notice.
    private static let lastMoment = Duration.milliseconds(500)
    /// How long interrupts of what was cut off get to reach Redis; shorter than what is left after a second signal.
    private static let lastErrands = Duration.milliseconds(300)

    private let settings: GatewaySettings
    private let queueSettings: QueueSettings
    private let redisURL: RedisURL
    private let redisSettings: RedisSettings
    private let logger: Logger
    /// Told the port when the gateway listens.
    package var onListening: (@Sendable (Int) -> Void)?

    package init(
        settings: GatewaySettings, queueSettings: QueueSettings, redisURL: RedisURL, redisSettings: RedisSettings, logger: Logger
    ) {
        self.settings = settings
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    private struct Parts {
        let context: GatewayContext
        let node: NIOLoopBound<GatewayNode>
        let subscriber: RedisSubscriber
        let server: Server<GatewayChannel>
        let certificates: CertificateBox?
    }

    /// - Throws: when the settings cannot be used (authentication, certificates) or the address cannot be listened on. Redis being away is
    /// waited for.
    package func run() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let result: Result<Void, any Error>
        do {
            let parts = try await build(group)
            let running = Running(parts)
            do { result = .success(try await serve(parts, running)) } catch { result = .failure(error) }
            await end(parts, running)
        } catch {
            result = .failure(error)
        }
        do { try await group.shutdownGracefully() } catch {
            logger.debug("event loop did not end cleanly", metadata: ["error": "\(error)"])
        }
        try result.get()
    }

    /// What runs until it is told to end, and not merely until the service's task is cancelled: interrupts of what the end cuts off still
    /// have to reach Redis.
    private struct Running {
        let server: Task<Void, any Error>
        let connections: Task<Void, Never>
        let beat: GatewayBeat
        let beating: Task<Void, Never>

        init(_ parts: Parts) {
            let beat = GatewayBeat(node: parts.node, context: parts.context)
            self.beat = beat
            // Graceful shutdown of the service must not close the listener before the drain is over.
            server = Task.detached { try await parts.server.run() }
            beating = Task.detached { await beat.run() }
            connections = Task.detached {
                async let commands: Void = parts.context.queue.redis.run()
                async let events: Void = parts.subscriber.run()
                _ = await (commands, events)
            }
        }
    }

    /// Nothing that could come back to the event loop is left when this returns, or the loop would be gone when it does.
    private func end(_ parts: Parts, _ running: Running) async {
        let errands = parts.context.errands
        running.server.cancel()
        running.beating.cancel()
        // Its end is known already.
        _ = await running.server.result
        let node = parts.node
        parts.context.eventLoop.execute { node.value.abort() }
        await errands.settle(within: Self.lastErrands)
        errands.cancel()
        parts.context.queue.redis.shutdown()
        parts.subscriber.shutdown()
        await running.connections.value
        await running.beating.value
        await errands.settle(within: .seconds(1))
    }

    private func build(_ group: MultiThreadedEventLoopGroup) async throws -> Parts {
        let eventLoop = group.next()
        let authenticator = try Authenticator(settings: settings.authentication, logger: logger)
        let certificates: CertificateBox? =
            if let certificate = settings.tlsCertificateFile, let key = settings.tlsKeyFile {
                try CertificateBox(certificateFile: certificate, keyFile: key)
            } else {
                nil
            }
        let redis = RedisClient(
            url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "commands", logger: logger)
        let subscriber = RedisSubscriber(
            url: redisURL, settings: redisSettings, eventLoop: eventLoop, name: "events", logger: logger)
        let queue = JobQueue(redis: redis, settings: queueSettings)
        let context = GatewayContext(
            settings: settings, queue: queue,
            feed: EventFeed(queue: queue, subscriber: subscriber, eventLoop: eventLoop, logger: logger), authenticator: authenticator,
            eventLoop: eventLoop,
            readiness: Readiness(isRedisReachable: { redis.isConnected }, isSubscriptionAlive: { subscriber.isAlive }), logger: logger)
        let node = try await eventLoop.submit { NIOLoopBound(GatewayNode(context: context), eventLoop: eventLoop) }.get()
        let channel = GatewayChannel(
            node: node, settings: settings, certificates: certificates,
            responder: GatewayResponder.make(makeRouter(context).buildResponder(), readiness: context.readiness, logger: logger))
        let (name, listening) = (settings.name, onListening)
        // Hummingbird tells in its own words what is said below.
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let server = Server(
            childChannelSetup: channel,
            configuration: ServerConfiguration(address: .hostname(settings.host, port: settings.port), serverName: "sluice"),
            onServerRunning: { [logger, settings] channel in
                let port = channel.localAddress?.port ?? settings.port
                logger.info("gateway listening", metadata: ["host": "\(settings.host)", "port": "\(port)", "gateway": "\(name)"])
                listening?(port)
            }, eventLoopGroup: group, logger: quiet)
        return Parts(context: context, node: node, subscriber: subscriber, server: server, certificates: certificates)
    }

    private enum Happening: Sendable {
        case serverEnded((any Error)?)
        case shutdown
        case other
    }

    private func serve(_ parts: Parts, _ running: Running) async throws {
        let server = running.server
        GatewayMetrics.begin()
        let probe = GatewayMetrics.watch(parts.context.eventLoop)
        defer { probe.cancel() }
        try await withTaskCancellationHandler {
            try await withThrowingTaskGroup(of: Happening.self) { group in
                group.addTask {
                    do { try await server.value } catch { return .serverEnded(error) }
                    return .serverEnded(nil)
                }
                group.addTask {
                    // Cancellation ends it too, by an error that says no more than that.
                    try? await gracefulShutdown()
                    return .shutdown
                }
                group.addTask {
                    await reload(parts)
                    return .other
                }
                defer { group.cancelAll() }
                while let happening = try await group.next() {
                    switch happening {
                    case .other: continue
                    case .serverEnded(let error):
                        if let error { throw error }
                        return
                    case .shutdown:
                        if !Task.isCancelled { await drain(parts, running.beat) }
                        server.cancel()
                        return
                    }
                }
            }
        } onCancel: {
            server.cancel()
        }
    }

    /// Readiness goes red at once, and stays to be seen for a moment; running requests get the drain's time, then everything is sent away.
    private func drain(_ parts: Parts, _ beat: GatewayBeat) async {
        parts.context.readiness.startDraining()
        let start = ContinuousClock.now
        let deadline = start + settings.drainTimeout + Self.lastMoment
        await within(deadline, parts.context.errands) {
            let node = parts.node
            await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
                parts.context.eventLoop.execute { node.value.drain { done.resume() } }
            }
        }
        // Until then probes are answered, and sockets refused with 503. A second signal cancels this.
        try? await Task.sleep(until: start + min(settings.drainNotice, settings.drainTimeout), clock: .continuous)
        await within(max(deadline, .now + Self.lastMoment), parts.context.errands) {
            do { try await parts.server.shutdownGracefully() } catch {
                parts.context.logger.debug("listener did not end cleanly", metadata: ["error": "\(error)"])
            }
        }
        await beat.leave()
        logger.info("gateway drained")
    }

    /// Waits for `body`, but not longer than to the deadline or the task's cancellation; what is not over then goes on by itself.
    private func within(_ deadline: ContinuousClock.Instant, _ errands: Errands, _ body: @escaping @Sendable () async -> Void) async {
        let (ended, end) = AsyncStream.makeStream(of: Void.self)
        errands.start {
            await body()
            end.finish()
        }
        let clock = Task {
            try? await Task.sleep(until: deadline, clock: .continuous)
            end.finish()
        }
        for await _ in ended {}
        clock.cancel()
    }

    /// Reads what may be replaced while the gateway runs, at every SIGHUP. Never ends it, whatever the files hold.
    private func reload(_ parts: Parts) async {
        for await _ in await UnixSignalsSequence(trapping: .sighup) {
            let authenticator = parts.context.authenticator
            if authenticator.readsFiles {
                do {
                    try authenticator.reload()
                    logger.info("keys and accounts read again")
                } catch {
                    logger.error("keys and accounts could not be read again; the old ones stay", metadata: ["error": "\(error)"])
                }
            }
            if let certificates = parts.certificates {
                do {
                    try certificates.reload()
                    logger.info("certificate read again")
                } catch {
                    logger.error("certificate could not be read again; the old one stays", metadata: ["error": "\(error)"])
                }
            }
            if !authenticator.readsFiles, parts.certificates == nil { logger.info("SIGHUP: no file to read again") }
        }
    }
}
