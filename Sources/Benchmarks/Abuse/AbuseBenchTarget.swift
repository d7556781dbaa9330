import Contract
import Glibc
import NIOCore
import NIOPosix
import OperatorTools
import RedisClient
import Support
import Synchronization
import Upstream

/// The attacker's view of the gateway: its open connections and counts. Thread-safe.
final class AbuseTarget: Sendable {
    static let key = "attacker-key-0123456789"
    static let tenant = "attacker"
    /// A loopback address other than the victim's, so that limits per address do not affect the victim.
    static let source = "127.0.0.66"

    let gateway: ListenAddress
    let redis: BenchRedis
    /// Smaller attacks, for debug builds.
    let isQuick: Bool
    private let group: any EventLoopGroup
    private let state = Mutex(State())

    private struct State {
        var connections: [AbuseConnection] = []
        var isOver = false
        var done = 0
        var refused = 0
    }

    init(gateway: ListenAddress, redis: BenchRedis, isQuick: Bool, group: any EventLoopGroup) {
        self.gateway = gateway
        self.redis = redis
        self.isQuick = isQuick
        self.group = group
    }

    /// The size of an attack for this build.
    func size(_ full: Int, quick: Int) -> Int { isQuick ? quick : full }

    /// Units of the attack that reached the gateway: messages, requests or connections.
    var done: Int { state.withLock { $0.done } }
    /// Units that the gateway rejected or cut off.
    var refused: Int { state.withLock { $0.refused } }

    /// Counts units of the attack.
    func count(_ units: Int = 1, accepted: Bool = true) {
        state.withLock {
            $0.done += units
            // At its end the attack closes its own connections; these do not count as rejected.
            if !accepted, !$0.isOver { $0.refused += units }
        }
    }

    /// Opens a connection from `source`.
    /// - Returns: nil when the connection is refused or the attack has ended.
    func connect(reads: Bool = true, hasSmallBuffer: Bool = false) async -> AbuseConnection? {
        guard !state.withLock({ $0.isOver }) else { return nil }
        do {
            let connection = try await AbuseConnection.open(
                to: gateway, from: Self.source, group: group, reads: reads, hasSmallBuffer: hasSmallBuffer)
            let isOver = state.withLock { state in
                if !state.isOver { state.connections.append(connection) }
                return state.isOver
            }
            if !isOver { return connection }
            connection.close()
        } catch {
            count(accepted: false)
        }
        return nil
    }

    /// Opens a WebSocket without registering; nil when that fails.
    func webSocket(hasSmallBuffer: Bool = false) async -> AbuseConnection? {
        guard let connection = await connect(hasSmallBuffer: hasSmallBuffer) else { return nil }
        guard await connection.exchange(AbuseMessage.upgrade(gateway), for: ["HTTP/1.1 101"], within: .seconds(5)) != nil else {
            count(accepted: false)
            connection.close()
            return nil
        }
        return connection
    }

    /// Opens a WebSocket and sends REGISTER. Returns the socket even if the answer is ERROR.
    func registered(
        _ register: ByteBuffer = AbuseMessage.register(key: key), hasSmallBuffer: Bool = false
    ) async -> AbuseConnection? {
        guard let socket = await webSocket(hasSmallBuffer: hasSmallBuffer) else { return nil }
        let answer = await socket.exchange(register, for: ["REGISTER_ACK", #""msg_type":"ERROR""#], within: .seconds(20))
        count(accepted: answer == 0)
        return socket
    }

    /// Ends the attack: closes all connections and opens no more.
    func end() {
        let connections = state.withLock { state in
            state.isOver = true
            return state.connections
        }
        for connection in connections { connection.close() }
    }

    /// Runs `count` concurrent calls of `body` and waits for all of them.
    func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for number in 0..<count { tasks.addTask { try await body(number) } }
            try await tasks.waitForAll()
        }
    }
}

/// A deployment for one attack: Redis, the simulator, a worker and a gateway with default limits.
struct AbuseDeployment: Sendable {
    let redis: BenchRedis
    let gateway: ListenAddress
    let gatewayProcess: Int
    let workerProcess: Int

    /// Starts the deployment, calls `body` and ends the deployment.
    /// - Parameter environment: environment of the nodes; names that begin with `SLUICE_` are ignored.
    static func with(
        for attack: AbuseAttack, environment: [String: String], _ body: @escaping @Sendable (AbuseDeployment) async throws -> Void
    ) async throws {
        DescriptorLimit.raise()
        try await PrivateRedis.with { redis in
            try await connect(redis) { commands in
                if let paused = attack.pausedClass {
                    _ = try await commands.client.send("SADD", .string(commands.keys.paused), .string(paused.rawValue))
                }
                try await start(redis, commands, for: attack, environment, body)
            }
        }
    }

    /// Starts the nodes, calls `body` and ends the nodes.
    private static func start(
        _ redis: PrivateRedis, _ commands: BenchRedis, for attack: AbuseAttack, _ environment: [String: String],
        _ body: @escaping @Sendable (AbuseDeployment) async throws -> Void
    ) async throws {
        let (simulator, gateway, metrics) = (try await freePort(), try await freePort(), try await freePort())
        let accounts = redis.folder + "/accounts"
        try write("victim:\(AbuseVictim.account):\(AbuseVictim.passwordHash)\n", to: accounts)
        let tenants = redis.folder + "/tenants"
        if let text = attack.tenants { try write(text, to: tenants) }
        let worker = [
            "SLUICE_REDIS_URL": redis.url, "SLUICE_UPSTREAM_KIND": attack.upstream.rawValue,
            "SLUICE_UPSTREAM_URL": "http://\(simulator)\(attack.upstream.basePath)", "SLUICE_WORKER_NAME": "bench",
            "SLUICE_METRICS_LISTEN": metrics.description,
        ].merging(attack.tenants == nil ? [:] : ["SLUICE_TENANTS_FILE": tenants]) { $1 }
        let front = [
            "SLUICE_REDIS_URL": redis.url, "SLUICE_LISTEN": gateway.description, "SLUICE_ACCOUNTS_FILE": accounts,
            "SLUICE_API_KEYS": "\(AbuseTarget.tenant):\(AbuseTarget.key),victim:\(AbuseVictim.key)",
        ]
        try await ChildNode.with(
            "simulator", ["simulate", "--listen", simulator.description], settings: ["SLUICE_LOG_LEVEL": "warning"],
            environment: environment, folder: redis.folder, isReady: { await ReadinessProbe.answers(simulator, "/healthz") }
        ) { simulatorNode in
            try await ChildNode.with(
                "worker", ["worker"], settings: worker, environment: environment, folder: redis.folder,
                isReady: { await ReadinessProbe.isReady(metrics) }
            ) { workerNode in
                try await ChildNode.with(
                    "gateway", ["gateway"], settings: front, environment: environment, folder: redis.folder,
                    descriptors: attack.descriptors, isReady: { await ReadinessProbe.isReady(gateway) }
                ) { gatewayNode in
                    // Killed instead of drained, since draining an exhausted node would take too long.
                    defer {
                        for node in [gatewayNode, workerNode, simulatorNode] where node.pid > 1 { kill(pid_t(node.pid), SIGKILL) }
                    }
                    try await body(
                        AbuseDeployment(
                            redis: commands, gateway: gateway, gatewayProcess: gatewayNode.pid, workerProcess: workerNode.pid))
                }
            }
        }
    }

    /// Connects to Redis and calls `body`.
    private static func connect(
        _ redis: PrivateRedis, _ body: @Sendable (BenchRedis) async throws -> Void
    ) async throws {
        try await BenchRedis.with(RedisURL(redis.url), RedisSettings(), Keys(), body)
    }

    private static func freePort() async throws -> ListenAddress {
        guard let address = await FreePort.find(from: ListenAddress(host: "127.0.0.1", port: 0)) else {
            throw CommandFailure(.failed, "sluice: no port of 127.0.0.1 is free")
        }
        return address
    }

    private static func write(_ text: String, to path: String) throws {
        guard SystemCalls.replaceContents(of: path, by: Array(text.utf8)) else {
            throw CommandFailure(.failed, "sluice: cannot write \(path)")
        }
    }
}
