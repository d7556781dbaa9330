import Contract
import Glibc
import OperatorTools
import RedisClient
import Upstream

/// The deployment to measure.
package enum BenchTarget: Sendable {
    /// One that is started for the measurement.
    /// - Parameters:
    ///   - environment: environment of its nodes; names that begin with `SLUICE_` are ignored.
    ///   - logLevel: value of `SLUICE_LOG_LEVEL` of its nodes.
    case selfContained(environment: [String: String], logLevel: String)
    case running(RunningDeployment)
}

/// The addresses of a running deployment.
package struct RunningDeployment: Sendable {
    let redisURL: RedisURL
    let redis: RedisSettings
    let keys: Keys
    let simulator: ListenAddress
    let gateway: ChatAddress
    let key: String?
    let processes: [(name: String, pid: Int)]

    /// - Parameters:
    ///   - key: the gateway's API key; nil when it needs none.
    ///   - processes: processes of this machine whose CPU time and memory are measured.
    package init(
        redisURL: RedisURL, redis: RedisSettings, keys: Keys, simulator: ListenAddress, gateway: ChatAddress, key: String?,
        processes: [(name: String, pid: Int)]
    ) {
        self.redisURL = redisURL
        self.redis = redis
        self.keys = keys
        self.simulator = simulator
        self.gateway = gateway
        self.key = key
        self.processes = processes
    }
}

/// The size of a deployment that is started for a measurement.
package struct BenchSize: Sendable {
    /// Number of workers.
    package var workers = 1
    /// Number of simulators; the workers use them in turn.
    package var simulators = 1
    /// Minimum concurrency of each worker, or the concurrency if `isExact`.
    package var capacity: Int
    package var isExact = false
    /// Sockets that a process, such as the gateway or a simulator, must be able to hold.
    package var sockets = 0

    package init(capacity: Int) { self.capacity = capacity }

    /// File descriptors of a process for other than these sockets.
    private static let otherDescriptors = 1_000

    /// `SLUICE_CONCURRENCY` of each worker.
    var concurrency: Int { isExact ? capacity : min(100_000, max(256, capacity)) }

    /// Raises the limit of file descriptors of this process, which its children inherit.
    /// - Throws: `CommandFailure` when it stays too low.
    func raiseDescriptorLimit() throws {
        let needed = UInt64(sockets + Self.otherDescriptors)
        let limit = DescriptorLimit.raise(to: sockets > 0 ? needed : 0)
        guard sockets == 0 || limit == 0 || limit >= needed else {
            throw CommandFailure(.failed, "sluice: \(sockets) sockets need \(needed) file descriptors; the limit is \(limit) (ulimit -n)")
        }
    }
}

/// A connection to the deployment that is measured.
package struct BenchDeployment: Sendable {
    let redis: BenchRedis
    let simulator: SimulatorControl
    let gateway: ChatAddress
    let key: String?
    /// The measured processes of this machine, including this one.
    let processes: [(name: String, pid: Int)]

    /// Connects to the deployment, starting it if it is self-contained, and calls `body`.
    /// - Parameters:
    ///   - size: of a self-contained deployment.
    ///   - kind: the dialect between worker and simulator of a self-contained deployment.
    package static func with(
        _ target: BenchTarget, size: BenchSize, kind: UpstreamConfiguration.Kind = .openai,
        _ body: @escaping @Sendable (BenchDeployment) async throws -> Void
    ) async throws {
        try size.raiseDescriptorLimit()
        switch target {
        case .running(let deployment): try await connect(deployment, body)
        case .selfContained(let environment, let logLevel):
            try await start(environment, logLevel, size, kind: kind, body)
        }
    }

    /// Starts Redis, the simulator, a worker and a gateway, and calls `body`.
    private static func start(
        _ environment: [String: String], _ logLevel: String, _ size: BenchSize, kind: UpstreamConfiguration.Kind,
        _ body: @escaping @Sendable (BenchDeployment) async throws -> Void
    ) async throws {
        try await PrivateRedis.with { redis in
            let gateway = try await freePort()
            let common = [
                "SLUICE_REDIS_URL": redis.url, "SLUICE_LOG_LEVEL": logLevel, "SLUICE_DRAIN_TIMEOUT": "1s",
                "SLUICE_QUEUE_MAX": "1000000", "SLUICE_QUEUE_MAX_PER_TENANT": "0",
            ]
            let worker = [
                "SLUICE_CONCURRENCY": String(size.concurrency), "SLUICE_UPSTREAM_KIND": kind.rawValue, "SLUICE_TOTAL_TIMEOUT": "1h",
                "SLUICE_IDLE_TIMEOUT": "1h",
                // Speech that takes 50 ms to begin and lasts for a minute, so that it is running when an answer is interrupted.
                "SLUICE_SPEECH_MODEL": "sim-n3000-g20-f50",
            ].merging(common) { _, new in new }
            let front = [
                "SLUICE_LISTEN": gateway.description, "SLUICE_AUTH": "none", "SLUICE_MAX_OUTGOING": "64MiB", "SLUICE_DRAIN_NOTICE": "0s",
                // The whole load comes from one tenant and one address.
                "SLUICE_MAX_SOCKETS_PER_TENANT": "0", "SLUICE_MAX_SOCKETS_PER_ADDRESS": "0", "SLUICE_MAX_BYTES_PER_SECOND": "0",
                "SLUICE_MAX_BYTES_PER_TENANT": "0", "SLUICE_MAX_SESSIONS_PER_TENANT": "0", "SLUICE_MAX_SESSION_BYTES_PER_TENANT": "0",
                "SLUICE_MAX_UNSENT_BYTES_PER_TENANT": "0", "SLUICE_MAX_REQUESTS_PER_TENANT": "0",
                "SLUICE_MAX_SOCKETS": String(max(10_000, size.sockets + 1_000)),
            ].merging(common) {
                _, new in new
            }
            try await startSimulators(size.simulators, environment, folder: redis.folder) { simulators in
                let upstreams = simulators.map {
                    ["SLUICE_UPSTREAM_URL": "http://\($0.address)\(kind.basePath)", "SLUICE_SPEECH_URL": "http://\($0.address)/v1"]
                }
                try await startWorkers(size.workers, worker, upstreams, environment, folder: redis.folder) { workers in
                    try await ChildNode.with(
                        "gateway", ["gateway"], settings: front, environment: environment, folder: redis.folder,
                        isReady: { await ReadinessProbe.isReady(gateway) }
                    ) { gatewayNode in
                        let nodes = (workers + [gatewayNode] + simulators.map(\.node)).map { (name: $0.name, pid: $0.pid) }
                        let deployment = RunningDeployment(
                            redisURL: try RedisURL(redis.url), redis: RedisSettings(), keys: Keys(), simulator: simulators[0].address,
                            gateway: ChatAddress(listening: gateway), key: nil, processes: nodes)
                        try await connect(deployment, body)
                    }
                }
            }
        }
    }

    /// Starts simulators one after the other and calls `body` with all of them.
    private static func startSimulators(
        _ count: Int, _ environment: [String: String], folder: String, earlier: [(node: ChildNode, address: ListenAddress)] = [],
        _ body: @escaping @Sendable ([(node: ChildNode, address: ListenAddress)]) async throws -> Void
    ) async throws {
        guard earlier.count < count else { return try await body(earlier) }
        let address = try await freePort()
        try await ChildNode.with(
            numbered("simulator", earlier.count), ["simulate", "--listen", address.description],
            settings: ["SLUICE_LOG_LEVEL": "warning"], environment: environment, folder: folder,
            isReady: { await ReadinessProbe.answers(address, "/healthz") }
        ) { node in
            try await startSimulators(count, environment, folder: folder, earlier: earlier + [(node, address)], body)
        }
    }

    /// Starts workers one after the other and calls `body` with all of them.
    /// - Parameter upstreams: the settings that name a simulator, for each simulator. The workers use them in turn.
    private static func startWorkers(
        _ count: Int, _ settings: [String: String], _ upstreams: [[String: String]], _ environment: [String: String], folder: String,
        earlier: [ChildNode] = [], _ body: @escaping @Sendable ([ChildNode]) async throws -> Void
    ) async throws {
        guard earlier.count < count else { return try await body(earlier) }
        let metrics = try await freePort()
        let name = numbered("worker", earlier.count)
        var own = settings.merging(upstreams[earlier.count % upstreams.count]) { _, new in new }
        own["SLUICE_METRICS_LISTEN"] = metrics.description
        own["SLUICE_WORKER_NAME"] = "bench-\(name)"
        try await ChildNode.with(
            name, ["worker"], settings: own, environment: environment, folder: folder, isReady: { await ReadinessProbe.isReady(metrics) }
        ) { node in
            try await startWorkers(count, settings, upstreams, environment, folder: folder, earlier: earlier + [node], body)
        }
    }

    /// The name of the next node of a kind: `worker`, then `worker-2`, `worker-3` and so on.
    /// - Parameter earlier: number of nodes of this kind that run already.
    private static func numbered(_ name: String, _ earlier: Int) -> String { earlier == 0 ? name : "\(name)-\(earlier + 1)" }

    /// Connects to Redis, resets the simulator's list of requests and calls `body`.
    private static func connect(_ deployment: RunningDeployment, _ body: @Sendable (BenchDeployment) async throws -> Void) async throws {
        try await BenchRedis.with(deployment.redisURL, deployment.redis, deployment.keys) { redis in
            var processes = deployment.processes
            // Only if the local process of this id is a Redis, since the server may be on another machine.
            if let pid = try await redis.processID(),
                ProcessReading.command(of: pid).map({ $0.contains("redis") || $0.contains("valkey") }) == true
            {
                processes.append(("redis", pid))
            }
            processes.append(("bench", Int(getpid())))
            let control = SimulatorControl(address: deployment.simulator)
            try await control.clear()
            try await body(
                BenchDeployment(
                    redis: redis, simulator: control, gateway: deployment.gateway, key: deployment.key, processes: processes))
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
