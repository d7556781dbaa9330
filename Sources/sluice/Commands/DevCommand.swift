import ArgumentParser
import Gateway
import Logging
import NIOCore
import NIOPosix
import Observability
import ServiceLifecycle
import Simulator
import Worker

struct DevCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "Run everything on this machine: Redis, a gateway, a worker and a simulated model.",
        discussion: """
            Needs redis-server and nothing else: it starts one of its own in a temporary folder. With SLUICE_UPSTREAM_URL (and SLUICE_UPSTREAM_KEY) or \
            SLUICE_UPSTREAMS_FILE set, that model is asked instead of the simulated one. Listens on 127.0.0.1:8080 or SLUICE_LISTEN, or on the next free \
            port. Everybody on this machine may come in. Ctrl-C ends everything.
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        var source = settings.source
        // A screen that can be read, and an end that is not waited for.
        source.propose("SLUICE_LOG_LEVEL", "warning")
        source.propose("SLUICE_DRAIN_TIMEOUT", "2s")
        source.propose("SLUICE_DRAIN_NOTICE", "0s")
        for name in SettingsReader.waysIn { source.remove(name) }
        source.override("SLUICE_AUTH", "none")
        source.propose("SLUICE_ADMIN_KEY", "dev-\(String(UInt64.random(in: .min ... .max), radix: 36))-operator")
        // Judged before anything is started; what is still to be decided is put in afterwards.
        var reader = SettingsReader(source)
        let logging = reader.logging()
        let wanted = reader.address("SLUICE_LISTEN")
        _ = reader.worker()
        reader.requireAuthentication(reader.gateway())
        try reader.finish()
        guard let wanted else { return }
        guard let listen = await FreePort.find(from: wanted) else {
            throw CommandFailure(.failed, "sluice: neither \(wanted) nor any of the ports after it can be listened on; set SLUICE_LISTEN")
        }
        source.override("SLUICE_LISTEN", listen.description)
        if listen.port != wanted.port, wanted.port != 0 {
            StandardError.write("sluice: port \(wanted.port) is taken, using \(listen.port) instead\n")
        }
        NodeStart.ignoreHangUp()
        Telemetry.start(logLevel: logging.level, logFormat: logging.format)
        NodeStart.raiseDescriptorLimit()
        let chosen = source
        try await PrivateRedis.with { redis in
            try await DevDeployment(source: chosen, listen: listen, redis: redis).run()
        }
    }
}

/// All nodes in one process.
private struct DevDeployment: Sendable {
    let source: SettingsSource
    let listen: ListenAddress
    let redis: PrivateRedis

    func run() async throws {
        let logger = Logger(label: "sluice.dev")
        var source = source
        source.override("SLUICE_REDIS_URL", redis.url)
        let hasUpstream = source.value("SLUICE_UPSTREAM_URL") != nil || source.value("SLUICE_UPSTREAMS_FILE") != nil
        let simulator = SimulatorServer(settings: SimulatorSettings(), group: MultiThreadedEventLoopGroup.singleton, logger: logger)
        if !hasUpstream {
            let address = try await simulator.start()
            source.override("SLUICE_UPSTREAM_KIND", "openai")
            source.override("SLUICE_UPSTREAM_URL", "http://127.0.0.1:\(address.port ?? 0)/v1")
            source.propose("SLUICE_SPEECH_URL", "http://127.0.0.1:\(address.port ?? 0)/v1")
        }
        var reader = SettingsReader(source)
        let (gateway, worker, deployment) = (reader.gateway(), reader.worker(), reader.deployment())
        try reader.finish()
        guard let deployment else { return }
        let services: [any Service] = [
            WorkerService(
                settings: worker, queueSettings: deployment.queue, redisURL: deployment.redisURL, redisSettings: deployment.redis,
                logger: logger.named("worker", worker.name)),
            GatewayService(
                settings: gateway, queueSettings: deployment.queue, redisURL: deployment.redisURL, redisSettings: deployment.redis,
                logger: logger.named("gateway", gateway.name)),
            Announcement(listen: listen, text: welcome(source, hasUpstream: hasUpstream)),
        ]
        let result: Result<Void, any Error>
        do { result = .success(try await NodeRun(services: services, logger: logger).run()) } catch { result = .failure(error) }
        await simulator.shutdown()
        try result.get()
    }

    private func welcome(_ source: SettingsSource, hasUpstream: Bool) -> String {
        let upstream =
            hasUpstream
            ? (source.value("SLUICE_UPSTREAM_URL")?.text).map { SettingValue.withoutSecrets(url: $0) } ?? source.value(
                "SLUICE_UPSTREAMS_FILE")?.text ?? ""
            : "simulated; set SLUICE_UPSTREAM_URL and SLUICE_UPSTREAM_KEY for a real one"
        let here = ChatAddress(listening: listen)
        let chat = listen == ListenAddress("127.0.0.1:8080") ? "sluice chat" : "sluice chat --url \(here)"
        return """
            Sluice is running, for this machine only.

              chat page    http://\(here.authority)/
              dashboard    http://\(here.authority)/dashboard  key \(source.value("SLUICE_ADMIN_KEY")?.text ?? "")
              terminal     \(chat)
              WebSocket    \(here)
              HTTP         curl http://\(here.authority)/v1/chat/completions -d '{"messages":[{"role":"user","content":"Hello"}]}'
              model        \(upstream)
              Redis        redis-cli -s \(redis.socket)

            Ctrl-C ends everything.

            """
    }
}

/// Says that everything is ready, once it is.
private struct Announcement: Service {
    private static let deadline = Duration.seconds(30)

    let listen: ListenAddress
    let text: String

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            let start = ContinuousClock.now
            do {
                while !(await ReadinessProbe.isReady(listen)) {
                    guard start.duration(to: .now) < Self.deadline else {
                        throw CommandFailure(
                            .failed, "sluice: the gateway on \(listen) did not get ready within 30 s (SLUICE_LOG_LEVEL=info says more)")
                    }
                    try await Task.sleep(for: .milliseconds(50))
                }
                StandardOutput.write(text)
                while true { try await Task.sleep(for: .seconds(86_400)) }
            } catch is CancellationError {
                return
            }
        }
    }
}

extension Logger {
    fileprivate func named(_ kind: String, _ name: String) -> Logger {
        var logger = self
        logger[metadataKey: kind] = "\(name)"
        return logger
    }
}
