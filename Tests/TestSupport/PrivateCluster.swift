import Foundation

/// A private Redis Cluster of primaries with one replica each, on free ports. It ends with this process.
package final class PrivateCluster: Sendable {
    package struct Options: Sendable {
        package var primaries = 3
        package var replicas = 1
        /// `cluster-node-timeout`, in milliseconds.
        package var nodeTimeout = 1_000
        /// `requirepass` of the servers.
        package var password: String?
        package init() {}
    }

    /// The primaries at the beginning, then their replicas in the same order.
    package let servers: [PrivateRedis]
    private let options: Options

    package var url: String {
        let addresses = servers.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        return "redis+cluster://\(options.password.map { ":\($0)@" } ?? "")\(addresses)"
    }

    private init(_ options: Options) throws {
        self.options = options
        var arguments = [
            "--cluster-enabled", "yes", "--cluster-node-timeout", "\(options.nodeTimeout)", "--cluster-announce-ip", "127.0.0.1",
            "--cluster-replica-validity-factor", "0", "--cluster-require-full-coverage", "no", "--repl-diskless-sync", "yes",
            "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb",
        ]
        if let password = options.password { arguments += ["--masterauth", password] }
        servers = try (0..<options.primaries * (1 + options.replicas)).map { _ in
            // The cluster bus would be at the port + 10,000 otherwise, which may be in use or above 65,535.
            try PrivateRedis.stopped(
                PrivateRedis.Options(arguments: arguments + ["--cluster-port", "\(Ports.free())"], password: options.password))
        }
    }

    /// Starts all servers and waits until each knows the whole cluster.
    fileprivate static func start(_ options: Options) async throws -> PrivateCluster {
        let cluster = try PrivateCluster(options)
        do {
            for server in cluster.servers { try await server.start() }
            try await cluster.assemble()
            return cluster
        } catch {
            await cluster.remove()
            throw error
        }
    }

    private func assemble() async throws {
        let share = 16_384 / options.primaries
        for (index, server) in servers.enumerated() {
            // Without it two nodes may have the same epoch, and elections take another round.
            try await server.command("CLUSTER", "SET-CONFIG-EPOCH", "\(index + 1)")
            guard index < options.primaries else { continue }
            let last = index == options.primaries - 1 ? 16_383 : (index + 1) * share - 1
            try await server.command("CLUSTER", "ADDSLOTSRANGE", "\(index * share)", "\(last)")
        }
        for server in servers.dropFirst() {
            let bus = try await servers[0].command("CONFIG", "GET", "cluster-port").array?.last?.string ?? ""
            try await server.command("CLUSTER", "MEET", "127.0.0.1", "\(servers[0].port)", bus)
        }
        for server in servers {
            try await until("node \(server.port) to know the others") { try await server.nodes().count == servers.count }
        }
        for (index, server) in servers.enumerated() where index >= options.primaries {
            let primary = servers[index % options.primaries]
            let id = try await primary.command("CLUSTER", "MYID").string ?? ""
            try await until("replica \(server.port)") { try await server.command("CLUSTER", "REPLICATE", id).string == "OK" }
        }
        for server in servers {
            try await until("node \(server.port) to be ready") {
                let nodes = try await server.nodes()
                return try await server.clusterInfo()["cluster_state"] == "ok"
                    && nodes.count { $0.isReplica } == servers.count - options.primaries
            }
        }
        for primary in servers.prefix(options.primaries) where options.replicas > 0 {
            try await until("the replicas of \(primary.port) to be connected") {
                try await primary.info("replication").contains("connected_slaves:\(options.replicas)\r")
            }
        }
    }

    /// The running server that serves a slot, as another running server tells.
    package func owner(of slot: Int) async throws -> PrivateRedis? {
        for server in servers where server.answers {
            guard let nodes = try? await server.nodes() else { continue }
            for node in nodes where !node.isReplica && !node.isFailed && node.slots.contains(where: { $0.contains(slot) }) {
                return servers.first { $0.port == node.port && $0.answers }
            }
        }
        return nil
    }

    /// Waits until another server than the former one serves the slot.
    package func newOwner(of slot: Int, after former: PrivateRedis, deadline: Duration = .testDeadline) async throws -> PrivateRedis {
        try await until("a new primary of slot \(slot)", deadline: deadline) { () -> PrivateRedis? in
            guard let owner = try await owner(of: slot), owner !== former,
                try await owner.info("replication").contains("role:master")
            else { return nil }
            return owner
        }
    }

    /// Sends a command with this key first to the server that serves it.
    package func command(_ name: String, key: String, _ arguments: String...) async throws -> RawReply {
        for server in servers where server.answers {
            guard let slot = try? await server.command("CLUSTER", "KEYSLOT", key).integer, let owner = try await owner(of: Int(slot)) else {
                continue
            }
            return try await owner.send([name, key] + arguments)
        }
        throw RawRedisError(description: "no server of the cluster serves \(key)")
    }

    /// Moves a slot with its keys to another primary, as `redis-cli --cluster reshard` does.
    /// - Parameters:
    ///   - first: keys that are moved before all others.
    ///   - body: what happens when these have been moved.
    package func move(
        _ slot: Int, to target: PrivateRedis, first: [String] = [], isolation: isolated (any Actor)? = #isolation,
        while body: () async throws -> Void = {}
    ) async throws {
        guard let source = try await owner(of: slot), source !== target else { return }
        let (from, to) = (
            try await source.command("CLUSTER", "MYID").string ?? "", try await target.command("CLUSTER", "MYID").string ?? ""
        )
        try await target.command("CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", from)
        try await source.command("CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", to)
        func move(_ keys: [String]) async throws {
            guard !keys.isEmpty else { return }
            let reply = try await source.send(["MIGRATE", "127.0.0.1", "\(target.port)", "", "0", "5000", "KEYS"] + keys)
            // A key that the target has, too, was created on both nodes.
            if case .error(let text) = reply { throw RawRedisError(description: "\(keys) cannot be moved: \(text)") }
        }
        try await move(first)
        try await body()
        // Keys that are created meanwhile are moved as well.
        var rounds = 0
        while true {
            let keys = try await source.command("CLUSTER", "GETKEYSINSLOT", "\(slot)", "100").array?.compactMap(\.string) ?? []
            guard !keys.isEmpty else { break }
            rounds += 1
            guard rounds <= 1_000 else { throw RawRedisError(description: "slot \(slot) could not be moved; it holds \(keys.prefix(10))") }
            try await move(keys)
        }
        for server in [target, source] { try await server.command("CLUSTER", "SETSLOT", "\(slot)", "NODE", to) }
        for server in servers where server.answers && server !== target && server !== source {
            _ = try? await server.command("CLUSTER", "SETSLOT", "\(slot)", "NODE", to)
        }
    }

    /// The slot of a key.
    package func slot(of key: String) async throws -> Int {
        guard let server = servers.first(where: \.answers), let slot = try await server.command("CLUSTER", "KEYSLOT", key).integer else {
            throw RawRedisError(description: "no server of the cluster runs")
        }
        return slot
    }

    /// The servers that serve slots and are not frozen or dead.
    private func primaries() async throws -> [PrivateRedis] {
        for server in servers where server.answers {
            guard let nodes = try? await server.nodes() else { continue }
            let ports = Set(nodes.filter { !$0.isReplica && !$0.isFailed && !$0.slots.isEmpty }.map(\.port))
            return servers.filter { ports.contains($0.port) && $0.answers }
        }
        return []
    }

    package func otherPrimary(than server: PrivateRedis) async throws -> PrivateRedis? {
        try await primaries().first { $0 !== server }
    }

    /// Waits until all servers see the whole cluster, and each primary has a replica that follows.
    package func waitForReplicas() async throws {
        for server in servers {
            try await until("node \(server.port) to see a whole cluster") {
                let nodes = try await server.nodes()
                return try await server.clusterInfo()["cluster_state"] == "ok" && nodes.count { !$0.isFailed } == servers.count
                    && nodes.count { !$0.slots.isEmpty } == options.primaries
            }
        }
        for server in servers {
            try await until("server \(server.port) to follow or to be followed") {
                let state = try await server.info("replication")
                return state.contains("role:master") ? state.contains("state=online") : state.contains("master_link_status:up")
            }
        }
    }

    /// Makes the replica of a slot's primary the primary, in agreement with it.
    package func failOver(_ slot: Int) async throws {
        guard let primary = try await owner(of: slot) else { return }
        let id = try await primary.command("CLUSTER", "MYID").string ?? ""
        let replica = try await until("a replica of the primary of slot \(slot)") { () -> PrivateRedis? in
            let lines = (try await primary.command("CLUSTER", "NODES").string ?? "").split(separator: "\n")
            let line = lines.first { $0.contains("slave") && $0.contains(id) && !$0.contains("fail") }
            let port = line?.split(separator: " ").dropFirst().first?.split(separator: "@").first?.split(separator: ":").last
            return servers.first { "\($0.port)" == port }
        }
        // The servers give up a fail-over that takes longer than 5 s.
        try await until("the fail-over to \(replica.port)") {
            guard try await replica.command("CLUSTER", "FAILOVER").string == "OK" else { return try await owner(of: slot) !== primary }
            return (try? await newOwner(of: slot, after: primary, deadline: .seconds(6))) != nil
        }
    }

    /// All hashes whose keys match a pattern.
    package func hashes(_ pattern: String) async throws -> [String: [String: String]] {
        var found: [String: [String: String]] = [:]
        for server in try await primaries() { found.merge(try await server.hashes(pattern)) { $1 } }
        return found
    }

    fileprivate func remove() async {
        for server in servers { await server.remove() }
    }
}

extension PrivateRedis {
    /// Sends one command on a connection of its own.
    @discardableResult
    package func send(_ arguments: [String]) async throws -> RawReply {
        let connection = try await connect()
        do {
            let reply = try await connection.send(arguments)
            await connection.close()
            return reply
        } catch {
            await connection.close()
            throw error
        }
    }

    /// All hashes whose keys match a pattern.
    package func hashes(_ pattern: String) async throws -> [String: [String: String]] {
        var found: [String: [String: String]] = [:]
        let connection = try await connect()
        var cursor = "0"
        repeat {
            let reply = try await connection.send("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string else {
                throw RawRedisError(description: "SCAN: \(reply)")
            }
            cursor = next
            for key in (parts[1].array ?? []).compactMap(\.string) { found[key] = try await connection.send("HGETALL", key).fields }
        } while cursor != "0"
        await connection.close()
        return found
    }

    /// A line of CLUSTER NODES.
    fileprivate struct ClusterNode {
        let port: Int
        let isReplica: Bool
        let isFailed: Bool
        let slots: [ClosedRange<Int>]

        init?(_ line: Substring) {
            let words = line.split(separator: " ")
            guard words.count >= 8, let address = words[1].split(separator: "@").first, let colon = address.lastIndex(of: ":"),
                let port = Int(address[address.index(after: colon)...])
            else { return nil }
            self.port = port
            let flags = words[2].split(separator: ",")
            isReplica = flags.contains("slave")
            isFailed = flags.contains("fail") || flags.contains("handshake") || flags.contains("noaddr")
            slots = words.dropFirst(8).compactMap { word in
                let bounds = word.split(separator: "-").compactMap { Int($0) }
                guard let first = bounds.first, let last = bounds.last, first <= last else { return nil }
                return first...last
            }
        }
    }

    fileprivate func nodes() async throws -> [ClusterNode] {
        (try await command("CLUSTER", "NODES").string ?? "").split(separator: "\n").compactMap { ClusterNode($0) }
    }

    fileprivate func clusterInfo() async throws -> [String: String] {
        var facts: [String: String] = [:]
        for line in (try await command("CLUSTER", "INFO").string ?? "").split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2 { facts[String(parts[0])] = String(parts[1]) }
        }
        return facts
    }
}

/// Runs `body` with a cluster and removes it afterwards, also when `body` throws.
package func withCluster<Value: Sendable>(
    _ options: PrivateCluster.Options = PrivateCluster.Options(), isolation: isolated (any Actor)? = #isolation,
    _ body: (PrivateCluster) async throws -> Value
) async throws -> Value {
    let cluster = try await PrivateCluster.start(options)
    do {
        let value = try await body(cluster)
        await cluster.remove()
        return value
    } catch {
        await cluster.remove()
        throw error
    }
}
