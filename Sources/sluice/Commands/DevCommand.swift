import ArgumentParser
import Gateway
import Logging
import NIOCore
import NIOPosix
import Observability
import OperatorTools
import ServiceLifecycle
import Simulator
import Worker

/// `sluice dev`: a complete deployment in one process, with a private Redis.
struct DevCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "Run a complete deployment on this machine: Redis, a gateway, a worker and a simulated model.",
        discussion: """
            Requires only redis-server, which it starts in a temporary folder. With SLUICE_UPSTREAM_URL (and SLUICE_UPSTREAM_KEY) or \
            SLUICE_UPSTREAMS_FILE, that upstream is used instead of the simulator. Listens on 127.0.0.1:8080 or SLUICE_LISTEN, or on the next free \
            port. Clients of this machine need no key. Ctrl-C ends everything.
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        var source = settings.source
        // Few log lines and a quick end suit a terminal.
        source.setIfUnset("SLUICE_LOG_LEVEL", "warning")
        source.setIfUnset("SLUICE_DRAIN_TIMEOUT", "2s")
        source.setIfUnset("SLUICE_DRAIN_NOTICE", "0s")
        for name in SettingsReader.authenticationMethods { source.remove(name) }
        source.override("SLUICE_AUTH", "none")
        source.setIfUnset("SLUICE_ADMIN_KEY", "dev-\(String(UInt64.random(in: .min ... .max), radix: 36))-operator")
        // Settings are checked before anything is started. The addresses of Redis and the simulator are set afterwards.
        var reader = SettingsReader(source)
        let logging = reader.logging()
        let wanted = reader.address("SLUICE_LISTEN")
        _ = reader.worker()
        reader.requireAuthentication(reader.gateway())
        try reader.finish()
        guard let wanted else { return }
        guard let listen = await FreePort.find(from: wanted) else {
            throw CommandFailure(
                .failed, "sluice: cannot listen on \(wanted) or any of the next ports; set SLUICE_LISTEN to a free address")
        }
        source.override("SLUICE_LISTEN", listen.description)
        if listen.port != wanted.port, wanted.port != 0 {
            StandardError.write("sluice: port \(wanted.port) is taken, using \(listen.port) instead\n")
        }
        NodeStart.ignoreHangUp()
        Telemetry.start(logLevel: logging.level, logFormat: logging.format)
        DescriptorLimit.raise()
        let chosen = source
        try await PrivateRedis.with { redis in
            try await DevDeployment(source: chosen, listen: listen, redis: redis).run()
        }
    }
}

/// A worker, a gateway and, without an upstream, the simulator in this process.
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
            source.setIfUnset("SLUICE_SPEECH_URL", "http://127.0.0.1:\(address.port ?? 0)/v1")
            source.setIfUnset("SLUICE_RECOGNITION_URL", "http://127.0.0.1:\(address.port ?? 0)/v1")
            source.setIfUnset("SLUICE_RETRIEVAL_URL", "http://127.0.0.1:\(address.port ?? 0)")
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

    /// The text that is printed when the deployment is ready: addresses, the dashboard's key, the upstream.
    private func welcome(_ source: SettingsSource, hasUpstream: Bool) -> String {
        let upstream =
            hasUpstream
            ? (source.value("SLUICE_UPSTREAM_URL")?.text).map { SettingValue.withoutSecrets(url: $0) } ?? source.value(
                "SLUICE_UPSTREAMS_FILE")?.text ?? ""
            : "simulated; set SLUICE_UPSTREAM_URL and SLUICE_UPSTREAM_KEY for a real one"
        let here = ChatAddress(listening: listen)
        let chat = listen == ListenAddress("127.0.0.1:8080") ? "sluice chat" : "sluice chat --url \(here)"
        return """
            Sluice is running and accepts clients of this machine only.

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

/// Prints the welcome text when the gateway is ready; fails after 30 s without readiness.
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
                            .failed,
                            "sluice: the gateway on \(listen) did not become ready within 30 s (set SLUICE_LOG_LEVEL=info for details)")
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
    /// This logger with the node's kind and name as metadata.
    fileprivate func named(_ kind: String, _ name: String) -> Logger {
        var logger = self
        logger[metadataKey: kind] = "\(name)"
        return logger
    }
}
