import Glibc
import NIOCore
import NIOPosix
import RedisClient
import Synchronization
import Upstream

/// The gateway that is attacked, as its attacker sees it, and what the attacker has open.
final class AbuseTarget: Sendable {
    static let key = "attacker-key-0123456789"
    static let tenant = "attacker"
    /// Another loopback address than the victim's: limits per address must not hit the victim.
    static let source = "127.0.0.66"

    let gateway: ListenAddress
    let redis: BenchRedis
    /// Fewer and smaller attacks, for a debug build.
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

    func size(_ full: Int, quick: Int) -> Int { isQuick ? quick : full }

    /// Units of the attack that reached the gateway: messages, requests or connections.
    var done: Int { state.withLock { $0.done } }
    /// Those that it refused or cut.
    var refused: Int { state.withLock { $0.refused } }

    func count(_ units: Int = 1, accepted: Bool = true) {
        state.withLock {
            $0.done += units
            // At its end the attack cuts its own connections.
            if !accepted, !$0.isOver { $0.refused += units }
        }
    }

    /// - Returns: nil when the connection is refused, or the attack is over.
    func connect(reads: Bool = true) async -> AbuseConnection? {
        guard !state.withLock({ $0.isOver }) else { return nil }
        do {
            let connection = try await AbuseConnection.open(to: gateway, from: Self.source, group: group, reads: reads)
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

    /// A WebSocket without REGISTER.
    func webSocket() async -> AbuseConnection? {
        guard let connection = await connect() else { return nil }
        guard await connection.exchange(AbuseMessage.upgrade(gateway), for: ["HTTP/1.1 101"], within: .seconds(5)) != nil else {
            count(accepted: false)
            connection.close()
            return nil
        }
        return connection
    }

    /// A WebSocket on which REGISTER was answered, be it with ERROR.
    func registered(_ register: ByteBuffer = AbuseMessage.register(key: key)) async -> AbuseConnection? {
        guard let socket = await webSocket() else { return nil }
        let answer = await socket.exchange(register, for: ["REGISTER_ACK", #""msg_type":"ERROR""#], within: .seconds(20))
        count(accepted: answer == 0)
        return socket
    }

    /// Closes everything; nothing more is opened.
    func end() {
        let connections = state.withLock { state in
            state.isOver = true
            return state.connections
        }
        for connection in connections { connection.close() }
    }

    /// Runs a body side by side, until all have returned.
    func inParallel(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for number in 0..<count { tasks.addTask { try await body(number) } }
            try await tasks.waitForAll()
        }
    }
}

/// A deployment for one attack: Redis, the simulator, a worker and a gateway whose limits are the defaults.
struct AbuseDeployment: Sendable {
    let redis: BenchRedis
    let gateway: ListenAddress
    let gatewayProcess: Int
    let workerProcess: Int

    static func with(
        for attack: AbuseAttack, _ body: @escaping @Sendable (AbuseDeployment) async throws -> Void
    ) async throws {
        NodeStart.raiseDescriptorLimit()
        try await PrivateRedis.with { redis in
            let (simulator, gateway, metrics) = (try await freePort(), try await freePort(), try await freePort())
            let accounts = redis.folder + "/accounts"
            try write("victim:\(AbuseVictim.account):\(AbuseVictim.passwordHash)\n", to: accounts)
            let worker = [
                "SLUICE_REDIS_URL": redis.url, "SLUICE_UPSTREAM_KIND": attack.upstream.rawValue,
                "SLUICE_UPSTREAM_URL": "http://\(simulator)\(attack.upstream.basePath)", "SLUICE_WORKER_NAME": "bench",
                "SLUICE_METRICS_LISTEN": metrics.description,
            ]
            let front = [
                "SLUICE_REDIS_URL": redis.url, "SLUICE_LISTEN": gateway.description, "SLUICE_ACCOUNTS_FILE": accounts,
                "SLUICE_API_KEYS": "\(AbuseTarget.tenant):\(AbuseTarget.key),victim:\(AbuseVictim.key)",
            ]
            try await ChildNode.with(
                "simulator", ["simulate", "--listen", simulator.description], settings: ["SLUICE_LOG_LEVEL": "warning"],
                folder: redis.folder, isReady: { await ReadinessProbe.answers(simulator, "/healthz") }
            ) { simulating in
                try await ChildNode.with(
                    "worker", ["worker"], settings: worker, folder: redis.folder, isReady: { await ReadinessProbe.isReady(metrics) }
                ) { working in
                    try await ChildNode.with(
                        "gateway", ["gateway"], settings: front, folder: redis.folder, descriptors: attack.descriptors,
                        isReady: { await ReadinessProbe.isReady(gateway) }
                    ) { serving in
                        // Not drained: an exhausted node would take too long.
                        defer { for node in [serving, working, simulating] where node.pid > 1 { kill(pid_t(node.pid), SIGKILL) } }
                        try await connect(redis, gateway, serving.pid, working.pid, body)
                    }
                }
            }
        }
    }

    private static func connect(
        _ redis: PrivateRedis, _ gateway: ListenAddress, _ serving: Int, _ working: Int,
        _ body: @Sendable (AbuseDeployment) async throws -> Void
    ) async throws {
        var source = SettingsSource(environment: [:])
        source.override("SLUICE_REDIS_URL", redis.url)
        var reader = SettingsReader(source)
        let found = reader.deployment()
        try reader.finish()
        guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL cannot be used") }
        try await BenchRedis.with(found) { redis in
            try await body(AbuseDeployment(redis: redis, gateway: gateway, gatewayProcess: serving, workerProcess: working))
        }
    }

    private static func freePort() async throws -> ListenAddress {
        guard let address = await FreePort.find(from: ListenAddress(host: "127.0.0.1", port: 0)) else {
            throw CommandFailure(.failed, "sluice: no port of 127.0.0.1 can be listened on")
        }
        return address
    }

    private static func write(_ text: String, to path: String) throws {
        guard let file = fopen(path, "w") else { throw CommandFailure(.failed, "sluice: \(path) cannot be written") }
        let written = fputs(text, file)
        guard fclose(file) == 0, written >= 0 else { throw CommandFailure(.failed, "sluice: \(path) cannot be written") }
    }
}
