import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support

/// The Redis servers of a deployment, shard by shard.
package struct RedisTopology: Sendable, Equatable {
    /// A replica as its primary describes it.
    package struct Replica: Sendable, Equatable {
        package var address: String
        /// For example `online`, `wait_bgsave`.
        package var state: String
        /// Bytes of the replication stream that it has not acknowledged.
        package var lagBytes: Int
    }

    /// A primary with its replicas.
    package struct Shard: Sendable, Equatable {
        package var primary: String
        /// The slots that it serves; empty for a single server.
        package var slots: [ClosedRange<Int>] = []
        /// Partitions of jobs in these slots.
        package var partitions: [Int] = []
        /// Whether it has answered all questions.
        package var isReachable = false
        /// `master` or `slave`; empty when it has not answered.
        package var role = ""
        package var version = ""
        package var evictionPolicy = ""
        /// Whether it is a node of a cluster.
        package var isClusterNode = false
        package var replicas: [Replica] = []

        init(primary: String) { self.primary = primary }
    }

    package var isCluster: Bool
    package var shards: [Shard] = []
    /// Slots of a cluster that no server serves.
    package var uncoveredSlots = 0

    package var json: JSON {
        [
            "kind": .string(isCluster ? "cluster" : "server"), "uncovered_slots": .integer(uncoveredSlots),
            "shards": .array(shards.map(\.json)),
        ]
    }
}

extension RedisTopology.Shard {
    fileprivate var json: JSON {
        [
            "primary": .string(primary), "reachable": .bool(isReachable), "role": .string(role), "version": .string(version),
            "slots": .array(slots.map { .array([.integer($0.lowerBound), .integer($0.upperBound)]) }),
            "partitions": .array(partitions.map { .integer($0) }),
            "replicas": .array(
                replicas.map { ["address": .string($0.address), "state": .string($0.state), "lag_bytes": .integer($0.lagBytes)] }),
        ]
    }

    /// Takes over the lines of INFO.
    mutating func add(info text: String) {
        var facts: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            facts[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        role = facts["role"] ?? role
        // Valkey from 8.0 on has names of its own; its `redis_version` is that of the last compatible Redis.
        if let mode = facts["redis_mode"] ?? facts["server_mode"] { isClusterNode = mode == "cluster" }
        version = facts["valkey_version"] ?? facts["redis_version"] ?? version
        evictionPolicy = facts["maxmemory_policy"] ?? evictionPolicy
        let written = facts["master_repl_offset"].flatMap { Int($0)?.boundedCount }
        for index in 0..<100 {
            guard let value = facts["slave\(index)"] else { continue }
            var replica: [Substring: Substring] = [:]
            for pair in value.split(separator: ",") {
                let parts = pair.split(separator: "=", maxSplits: 1)
                if parts.count == 2 { replica[parts[0]] = parts[1] }
            }
            let acknowledged = replica["offset"].flatMap { Int($0)?.boundedCount } ?? 0
            replicas.append(
                RedisTopology.Replica(
                    address: "\(replica["ip"] ?? "?"):\(replica["port"] ?? "?")", state: String(replica["state"] ?? ""),
                    lagBytes: max(0, (written ?? 0) - acknowledged)))
        }
    }
}

extension JobProducer {
    /// Reads the topology: three commands per shard. Shards that do not answer are listed as not reachable.
    package func topology() async -> RedisTopology {
        await waitForServers()
        // The address of a single server is known after the first command.
        let answers = redis.isCluster ? true : (try? await redis.send("PING")) != nil
        let servers = redis.shards
        var topology = RedisTopology(isCluster: redis.isCluster, uncoveredSlots: redis.uncoveredSlots)
        guard answers else {
            topology.shards = servers.map { RedisTopology.Shard(primary: $0.primary) }
            return topology
        }
        topology.shards = await withTaskGroup(of: (Int, RedisTopology.Shard).self) { tasks in
            for (number, server) in servers.enumerated() { tasks.addTask { (number, await shard(server)) } }
            return await tasks.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
        }
        return topology
    }

    private func shard(_ server: RedisShard) async -> RedisTopology.Shard {
        var shard = RedisTopology.Shard(primary: server.primary)
        shard.slots = server.slots
        shard.partitions = (0..<keys.partitions).filter { server.serves(keys.shard(partition: $0)) }
        let sections = ["replication", "server", "memory"]
        var answered = 0
        for section in sections {
            // A server that is not reachable is reported as such.
            guard let reply = try? await redis.send("INFO", .string(section), to: server, timeout: shardTimeout) else { break }
            answered += 1
            shard.add(info: reply.string ?? "")
        }
        // Otherwise the checks would pass for facts that are not known.
        shard.isReachable = answered == sections.count
        return shard
    }
}
