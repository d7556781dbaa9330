import Contract
import TestSupport

/// Gateways and workers with a faulty proxy on every link: to Redis, to the upstream, and from the clients.
struct Deployment: Sendable {
    struct Member: Sendable {
        let node: Node
        let toRedis: FaultProxy
        /// A worker's proxy to the upstream, or a gateway's proxy for its clients.
        let other: FaultProxy
    }

    /// The lease of all nodes, in milliseconds. Shorter than the lab's, so that faults outlast it.
    static let lease = 3_000

    let lab: Lab
    let workers: [Member]
    let gateways: [Member]

    private static let settings: [String: String?] = [
        "SLUICE_LEASE": "\(lease)ms", "SLUICE_GRACE": "60s", "SLUICE_RETENTION": "24h", "SLUICE_MAX_CRASHES": "100",
        "SLUICE_IDLE_TIMEOUT": "8s", "SLUICE_FIRST_TOKEN_TIMEOUT": "6s", "SLUICE_CONNECT_TIMEOUT": "3s",
    ]

    /// A deployment on several Redis servers, whose links have no proxies but the one to the gateways.
    static func start(_ lab: Lab, redis: some ChaosTopology, workers: Int, gateways: Int, seed: UInt64) async throws -> Deployment {
        let own: [String: String?] = ["SLUICE_REDIS_URL": redis.url, "SLUICE_PARTITIONS": "\(redis.partitions)"]
        let common = settings.merging(own) { $1 }
        var members: [[Member]] = [[], []]
        for number in 1...workers {
            let node = try await lab.worker("w\(number)", common, ready: false)
            let unused = try await lab.proxy(to: node.port)
            members[0].append(Member(node: node, toRedis: unused, other: unused))
        }
        for number in 1...gateways {
            let node = try await lab.gateway("g\(number)", common, ready: false)
            let front = try await lab.proxy(to: node.port, seed: seed &+ UInt64(300 + number))
            members[1].append(Member(node: node, toRedis: front, other: front))
        }
        for member in members[0] + members[1] { try await member.node.ready() }
        return Deployment(lab: lab, workers: members[0], gateways: members[1])
    }

    static func start(_ lab: Lab, workers: Int, gateways: Int, seed: UInt64, _ settings: [String: String?] = [:]) async throws -> Deployment
    {
        let common = Self.settings.merging(settings) { $1 }
        var members: [[Member]] = [[], []]
        for number in 1...workers {
            let toRedis = try await lab.proxy(to: lab.redis.port, seed: seed &+ UInt64(number))
            let upstream = try await lab.proxy(to: lab.simulator.port, seed: seed &+ UInt64(100 + number))
            let own: [String: String?] = [
                "SLUICE_REDIS_URL": "redis://127.0.0.1:\(toRedis.port)", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(upstream.port)/v1",
            ]
            let node = try await lab.worker("w\(number)", common.merging(own) { $1 }, ready: false)
            members[0].append(Member(node: node, toRedis: toRedis, other: upstream))
        }
        for number in 1...gateways {
            let toRedis = try await lab.proxy(to: lab.redis.port, seed: seed &+ UInt64(200 + number))
            let own: [String: String?] = ["SLUICE_REDIS_URL": "redis://127.0.0.1:\(toRedis.port)"]
            let node = try await lab.gateway("g\(number)", common.merging(own) { $1 }, ready: false)
            let front = try await lab.proxy(to: node.port, seed: seed &+ UInt64(300 + number))
            members[1].append(Member(node: node, toRedis: toRedis, other: front))
        }
        for member in members[0] + members[1] { try await member.node.ready() }
        return Deployment(lab: lab, workers: members[0], gateways: members[1])
    }

    var all: [Member] { workers + gateways }

    /// Waits until a gateway is ready. The one at `index` is checked last.
    func readyGateway(after index: Int = 0, until end: ContinuousClock.Instant) async throws -> Int {
        let order = (1...gateways.count).map { (index + $0) % gateways.count }
        return try await until("a gateway to be ready", deadline: end - .now) {
            // A gateway that does not answer is skipped.
            for index in order where (try? await gateways[index].node.get("/readyz").status) == 200 { return index }
            return nil
        }
    }

    func member(_ place: FaultSchedule.Place) -> Member {
        switch place {
        case .worker(let index): workers[index]
        case .gateway(let index): gateways[index]
        }
    }

    func proxy(_ link: FaultSchedule.Link) -> FaultProxy {
        switch link {
        case .workerToRedis(let index): workers[index].toRedis
        case .gatewayToRedis(let index): gateways[index].toRedis
        case .workerToUpstream(let index): workers[index].other
        case .clientToGateway(let index): gateways[index].other
        }
    }
}
