import ArgumentParser
import Contract
import Glibc
import Logging
import Observability
import RedisClient
import Upstream

/// The options of all measurements.
struct BenchOptions: ParsableArguments {
    @Flag(name: .long, help: "Start Redis, a simulator, a worker and a gateway for the measurement.")
    var selfContained = false
    @Option(
        name: .long,
        help: ArgumentHelp("The simulator used by the deployment (default: from SLUICE_UPSTREAM_URL).", valueName: "host:port"))
    var simulator: String?
    @Option(name: .long, help: ArgumentHelp("The gateway (default: from SLUICE_LISTEN).", valueName: "address"))
    var url: String?
    @Option(
        name: .long,
        help: ArgumentHelp(
            "A local process whose CPU time is measured, such as worker=4711; may be repeated.", valueName: "name=pid"))
    var process: [String] = []
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        if let simulator, ListenAddress(simulator) == nil {
            throw ValidationError("--simulator must be an address such as 127.0.0.1:9090.")
        }
        if let url, ChatAddress(url) == nil { throw ValidationError("--url must be an address such as ws://127.0.0.1:8080.") }
        for text in process where Self.named(text) == nil {
            throw ValidationError("--process must be a name and a process id, such as worker=4711.")
        }
    }

    /// Parses `name=pid`.
    static func named(_ text: String) -> (name: String, pid: Int)? {
        let sides = text.split(separator: "=", maxSplits: 1)
        guard sides.count == 2, let pid = Int(sides[1]), pid > 0 else { return nil }
        return (String(sides[0]), pid)
    }
}

/// The deployment that is measured: a running one, or one started for the measurement.
struct BenchDeployment: Sendable {
    let redis: BenchRedis
    let simulator: SimulatorControl
    let gateway: ChatAddress
    let key: String?
    /// The measured processes of this machine, including this one.
    let processes: [(name: String, pid: Int)]

    /// Connects to the deployment, starting it if it is self-contained, and calls `body`.
    /// - Parameters:
    ///   - capacity: minimum concurrency of the worker of a self-contained deployment.
    ///   - kind: the dialect between worker and simulator of a self-contained deployment.
    static func with(
        _ options: BenchOptions, capacity: Int, kind: UpstreamConfiguration.Kind = .openai,
        _ body: @escaping @Sendable (BenchDeployment) async throws -> Void
    ) async throws {
        NodeStart.raiseDescriptorLimit()
        guard options.selfContained else { return try await running(options, body) }
        let level =
            options.settings.source.value("SLUICE_LOG_LEVEL")?.origin == .default
            ? "warning" : options.settings.source.value("SLUICE_LOG_LEVEL")?.text
        try await PrivateRedis.with { redis in
            let (simulator, gateway, metrics) = (try await freePort(), try await freePort(), try await freePort())
            let common = [
                "SLUICE_REDIS_URL": redis.url, "SLUICE_LOG_LEVEL": level ?? "warning", "SLUICE_DRAIN_TIMEOUT": "1s",
                "SLUICE_QUEUE_MAX": "1000000", "SLUICE_QUEUE_MAX_PER_TENANT": "0",
            ]
            let worker = [
                "SLUICE_CONCURRENCY": String(min(100_000, max(256, capacity))), "SLUICE_UPSTREAM_KIND": kind.rawValue,
                "SLUICE_UPSTREAM_URL": "http://\(simulator)\(kind.basePath)", "SLUICE_METRICS_LISTEN": metrics.description,
                "SLUICE_WORKER_NAME": "bench", "SLUICE_TOTAL_TIMEOUT": "1h",
            ].merging(common) { _, new in new }
            let front = [
                "SLUICE_LISTEN": gateway.description, "SLUICE_AUTH": "none", "SLUICE_MAX_OUTGOING": "64MiB", "SLUICE_DRAIN_NOTICE": "0s",
                // The whole load comes from one tenant and one address.
                "SLUICE_MAX_SOCKETS_PER_TENANT": "0", "SLUICE_MAX_SOCKETS_PER_ADDRESS": "0", "SLUICE_MAX_BYTES_PER_SECOND": "0",
                "SLUICE_MAX_BYTES_PER_TENANT": "0", "SLUICE_MAX_SESSIONS_PER_TENANT": "0", "SLUICE_MAX_SESSION_BYTES_PER_TENANT": "0",
                "SLUICE_MAX_UNSENT_BYTES_PER_TENANT": "0",
            ].merging(common) {
                _, new in new
            }
            try await ChildNode.with(
                "simulator", ["simulate", "--listen", simulator.description], settings: ["SLUICE_LOG_LEVEL": "warning"],
                folder: redis.folder,
                isReady: { await ReadinessProbe.answers(simulator, "/healthz") }
            ) { simulatorNode in
                try await ChildNode.with(
                    "worker", ["worker"], settings: worker, folder: redis.folder, isReady: { await ReadinessProbe.isReady(metrics) }
                ) { workerNode in
                    try await ChildNode.with(
                        "gateway", ["gateway"], settings: front, folder: redis.folder, isReady: { await ReadinessProbe.isReady(gateway) }
                    ) { gatewayNode in
                        var source = SettingsSource(environment: [:])
                        source.override("SLUICE_REDIS_URL", redis.url)
                        try await connect(
                            source, simulator: simulator, gateway: ChatAddress(listening: gateway), key: nil,
                            processes: [workerNode, gatewayNode, simulatorNode].map { ($0.name, $0.pid) }, body)
                    }
                }
            }
        }
    }

    /// Connects to a running deployment.
    private static func running(_ options: BenchOptions, _ body: @Sendable (BenchDeployment) async throws -> Void) async throws {
        let source = options.settings.source
        let upstream = source.value("SLUICE_UPSTREAM_URL").flatMap { ChatAddress($0.text) }.map {
            ListenAddress(host: $0.host, port: $0.port)
        }
        let listen = source.value("SLUICE_LISTEN").flatMap { ListenAddress($0.text) } ?? ListenAddress(host: "127.0.0.1", port: 8_080)
        try await connect(
            source, simulator: options.simulator.flatMap { ListenAddress($0) } ?? upstream ?? ListenAddress(host: "127.0.0.1", port: 9_090),
            gateway: options.url.flatMap { ChatAddress($0) } ?? ChatAddress(listening: listen), key: source.value("SLUICE_API_KEY")?.text,
            processes: options.process.compactMap(BenchOptions.named), body)
    }

    /// Connects to Redis, resets the simulator's list of requests and calls `body`.
    private static func connect(
        _ source: SettingsSource, simulator: ListenAddress, gateway: ChatAddress, key: String?, processes: [(name: String, pid: Int)],
        _ body: @Sendable (BenchDeployment) async throws -> Void
    ) async throws {
        var reader = SettingsReader(source)
        let found = reader.deployment()
        try reader.finish()
        guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL is invalid") }
        try await BenchRedis.with(found) { redis in
            var processes = processes
            // Only if the local process of this id is a Redis, since the server may be on another machine.
            if let pid = try await redis.processID(),
                ProcessReading.command(of: pid).map({ $0.contains("redis") || $0.contains("valkey") }) == true
            {
                processes.append(("redis", pid))
            }
            processes.append(("bench", Int(getpid())))
            let control = SimulatorControl(address: simulator)
            try await control.clear()
            try await body(BenchDeployment(redis: redis, simulator: control, gateway: gateway, key: key, processes: processes))
        }
    }

    private static func freePort() async throws -> ListenAddress {
        guard let address = await FreePort.find(from: ListenAddress(host: "127.0.0.1", port: 0)) else {
            throw CommandFailure(.failed, "sluice: no port of 127.0.0.1 is free")
        }
        return address
    }

    /// The current CPU time and memory of all processes.
    func readings() -> [ProcessReading] { processes.compactMap { ProcessReading.read($0.name, pid: $0.pid) } }
}

extension UpstreamConfiguration.Kind {
    /// The path of the simulator's endpoint for this dialect.
    var basePath: String {
        switch self {
        case .openai: "/v1"
        case .dashscope: "/api/v1"
        case .anthropic, .ollama: ""
        }
    }
}
