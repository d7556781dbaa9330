import Hummingbird
import HummingbirdCore
import JobQueue
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Support
import UnixSignals

/// Runs a gateway. Graceful shutdown drains it; cancellation stops it immediately.
package struct GatewayService: Service {
    /// Time for HTTP requests to finish after the drain timeout.
    private static let shutdownAllowance = Duration.milliseconds(500)
    /// Time for the interrupts of aborted requests to reach Redis. Shorter than the time to exit after a second signal.
    private static let interruptAllowance = Duration.milliseconds(300)
    /// Maximum number of connections accepted in one turn of the event loop.
    private static let acceptedPerTurn: ChannelOptions.Types.MaxMessagesPerReadOption.Value = 64

    private let settings: GatewaySettings
    private let queueSettings: QueueSettings
    private let redisURL: ProducerConnections.ServerURL
    private let redisSettings: ProducerConnections.ServerSettings
    private let logger: Logger
    /// Called with the port once the gateway listens.
    package var onListening: (@Sendable (Int) -> Void)?

    package init(
        settings: GatewaySettings, queueSettings: QueueSettings, redisURL: ProducerConnections.ServerURL,
        redisSettings: ProducerConnections.ServerSettings, logger: Logger
    ) {
        self.settings = settings
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    /// The components of one run.
    private struct Parts {
        let context: GatewayContext
        let gateway: NIOLoopBound<GatewayState>
        let connections: ProducerConnections
        let server: Server<GatewayChannel>
        let certificates: CertificateBox?
    }

    /// Serves until graceful shutdown or cancellation. An unreachable Redis is no error: the gateway starts and reports not ready.
    /// - Throws: when authentication or certificate settings are invalid, or the address cannot be bound.
    package func run() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let result: Result<Void, any Error>
        do {
            let parts = try await build(group)
            let running = RunningTasks(parts)
            do { result = .success(try await serve(parts, running)) } catch { result = .failure(error) }
            await stop(parts, running)
        } catch {
            result = .failure(error)
        }
        do { try await group.shutdownGracefully() } catch {
            logger.debug("event loop shutdown failed", metadata: ["error": "\(error)"])
        }
        try result.get()
    }

    /// Detached tasks that `stop` ends explicitly. They do not inherit cancellation from the service's task, because the interrupts of
    /// aborted requests must still reach Redis after it.
    private struct RunningTasks {
        let server: Task<Void, any Error>
        let connections: Task<Void, Never>
        let heartbeat: GatewayHeartbeat
        let heartbeatTask: Task<Void, Never>

        init(_ parts: Parts) {
            let heartbeat = GatewayHeartbeat(gateway: parts.gateway, context: parts.context)
            self.heartbeat = heartbeat
            // Detached from the service's graceful shutdown, which would close the listener before the drain is over.
            server = Task.detached { try await parts.server.run() }
            heartbeatTask = Task.detached { await heartbeat.run() }
            connections = Task.detached { await parts.connections.run() }
        }
    }

    /// Stops all tasks in order: listener, sockets, background tasks, Redis connections. No task may resume on the event loop after this
    /// returns, since the loop shuts down next.
    private func stop(_ parts: Parts, _ running: RunningTasks) async {
        let backgroundTasks = parts.context.backgroundTasks
        running.server.cancel()
        running.heartbeatTask.cancel()
        // `serve` has already reported the server's error, if any.
        _ = await running.server.result
        let gateway = parts.gateway
        parts.context.eventLoop.execute { gateway.value.abort() }
        await backgroundTasks.finish(within: Self.interruptAllowance)
        backgroundTasks.cancel()
        parts.connections.shutdown()
        await running.connections.value
        await running.heartbeatTask.value
        await backgroundTasks.finish(within: .seconds(1))
    }

    /// Creates all components on one event loop of `group`.
    /// - Throws: when authentication or certificate settings are invalid.
    private func build(_ group: MultiThreadedEventLoopGroup) async throws -> Parts {
        let eventLoop = group.next()
        let authenticator = try Authenticator(settings: settings.authentication, logger: logger)
        let certificates: CertificateBox? =
            if let certificate = settings.tlsCertificateFile, let key = settings.tlsKeyFile {
                try CertificateBox(certificateFile: certificate, keyFile: key)
            } else {
                nil
            }
        let connections = ProducerConnections(
            url: redisURL, settings: redisSettings, queue: queueSettings, eventLoop: eventLoop, logger: logger)
        let context = GatewayContext(
            settings: settings, queue: connections.producer, feed: connections.feed, authenticator: authenticator, eventLoop: eventLoop,
            readiness: Readiness(
                isRedisReachable: { connections.isConnected }, isSubscriptionAlive: { connections.isSubscriptionAlive }),
            logger: logger)
        let gateway = try await eventLoop.submit { NIOLoopBound(GatewayState(context: context), eventLoop: eventLoop) }.get()
        let channel = GatewayChannel(
            gateway: gateway, settings: settings, certificates: certificates,
            responder: GatewayResponder.make(
                makeRouter(context).buildResponder(), webSocketPaths: settings.webSocketPaths, readiness: context.readiness, logger: logger)
        )
        let (name, listening) = (settings.name, onListening)
        // Hummingbird's own start-up messages would duplicate the one below.
        var serverLogger = logger
        serverLogger.logLevel = max(logger.logLevel, .warning)
        let server = Server(
            childChannelSetup: channel,
            // A flood of connections must not fill the kernel's queue, in which those of all clients wait to be accepted.
            configuration: ServerConfiguration(
                address: .hostname(settings.host, port: settings.port), serverName: "sluice", backlog: 4_096),
            onServerRunning: { [logger, settings] channel in
                let port = channel.localAddress?.port ?? settings.port
                channel.eventLoop.execute {
                    do { try channel.pipeline.syncOperations.addHandler(AcceptErrorHandler(logger: logger), position: .first) } catch {
                        logger.debug("listener closed at its start", metadata: ["error": "\(error)"])
                    }
                }
                logger.info("gateway listening", metadata: ["host": "\(settings.host)", "port": "\(port)", "gateway": "\(name)"])
                // NIO accepts 4 connections in a turn of the loop. In a flood of connections that send at full speed, a turn takes
                // milliseconds, and a new connection would wait for many.
                channel.setOption(.maxMessagesPerRead, value: Self.acceptedPerTurn).whenFailure { error in
                    logger.warning("cannot set how many connections are accepted at once", metadata: ["error": "\(error)"])
                }
                listening?(port)
            }, eventLoopGroup: group, logger: serverLogger)
        return Parts(context: context, gateway: gateway, connections: connections, server: server, certificates: certificates)
    }

    private enum ServiceEvent: Sendable {
        case serverEnded((any Error)?)
        case shutdown
        case reloadEnded
    }

    /// Waits for the server to end or for a graceful shutdown, and drains on the latter.
    /// - Throws: the error that ended the server.
    private func serve(_ parts: Parts, _ running: RunningTasks) async throws {
        let server = running.server
        GatewayMetrics.begin()
        let probe = GatewayMetrics.watch(parts.context.eventLoop)
        defer { probe.cancel() }
        try await withTaskCancellationHandler {
            try await withThrowingTaskGroup(of: ServiceEvent.self) { group in
                group.addTask {
                    do { try await server.value } catch { return .serverEnded(error) }
                    return .serverEnded(nil)
                }
                group.addTask {
                    // Throws only CancellationError.
                    try? await gracefulShutdown()
                    return .shutdown
                }
                group.addTask {
                    await reload(parts)
                    return .reloadEnded
                }
                defer { group.cancelAll() }
                while let event = try await group.next() {
                    switch event {
                    case .reloadEnded: continue
                    case .serverEnded(let error):
                        if let error { throw error }
                        return
                    case .shutdown:
                        if !Task.isCancelled { await drain(parts, running.heartbeat) }
                        server.cancel()
                        return
                    }
                }
            }
        } onCancel: {
            server.cancel()
        }
    }

    /// Sets readiness to not ready, waits for running requests up to the drain timeout, then closes the listener. Lasts at least the drain
    /// notice, so that load balancers see the failing probe before the port closes.
    private func drain(_ parts: Parts, _ heartbeat: GatewayHeartbeat) async {
        parts.context.readiness.startDraining()
        let start = ContinuousClock.now
        let deadline = start + settings.drainTimeout + Self.shutdownAllowance
        await parts.context.backgroundTasks.start {
            let gateway = parts.gateway
            await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
                parts.context.eventLoop.execute { gateway.value.drain { done.resume() } }
            }
        }.ends(by: deadline)
        // Until then probes are answered and new sockets rejected with 503. A second signal cancels this sleep.
        try? await Task.sleep(until: start + min(settings.drainNotice, settings.drainTimeout), clock: .continuous)
        await parts.context.backgroundTasks.start {
            do { try await parts.server.shutdownGracefully() } catch {
                parts.context.logger.debug("listener shutdown failed", metadata: ["error": "\(error)"])
            }
        }.ends(by: max(deadline, .now + Self.shutdownAllowance))
        await heartbeat.leave()
        logger.info("gateway drained")
    }

    /// Reloads API keys, accounts and certificates at every SIGHUP. Files that cannot be used are logged and the previous values kept.
    private func reload(_ parts: Parts) async {
        for await _ in await UnixSignalsSequence(trapping: .sighup) {
            let authenticator = parts.context.authenticator
            if authenticator.readsFiles {
                do {
                    try authenticator.reload()
                    logger.info("keys and accounts reloaded")
                } catch {
                    logger.error("keys and accounts reload failed; the previous ones stay in use", metadata: ["error": "\(error)"])
                }
            }
            if let certificates = parts.certificates {
                do {
                    try certificates.reload()
                    logger.info("certificate reloaded")
                } catch {
                    logger.error("certificate reload failed; the previous one stays in use", metadata: ["error": "\(error)"])
                }
            }
            if !authenticator.readsFiles, parts.certificates == nil { logger.info("SIGHUP received; no files to reload") }
        }
    }
}
