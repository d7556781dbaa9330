import Contract
import RedisClient

/// Checks of the Redis servers of a deployment, for `sluice config check --connect`.
package struct RedisCheck: Sendable {
    /// What is wrong, and how to mend it.
    package struct Fault: Sendable, Equatable {
        package var problem: String
        package var remedy: String
    }

    /// The oldest versions: for streams as the scripts use them, and for sharded channels.
    private static let (oldest, oldestOfCluster) = ((6, 2), (7, 0))

    /// The faults that the topology shows.
    static func faults(of topology: RedisTopology) -> [Fault] {
        var faults: [Fault] = []
        func add(_ problem: String, _ remedy: String) { faults.append(Fault(problem: problem, remedy: remedy)) }
        if topology.isCluster, topology.shards.isEmpty {
            add("no node of the cluster has answered", "check the addresses in SLUICE_REDIS_URL")
        }
        if topology.uncoveredSlots > 0 {
            add(
                "no server of the cluster serves \(topology.uncoveredSlots) of 16384 slots",
                "see CLUSTER NODES; assign the slots, or bring the failed primary or its replica back")
        }
        for shard in topology.shards {
            guard shard.isReachable else {
                add("the server \(shard.primary) does not answer", "start it, or check the network and the ACL rule for INFO")
                continue
            }
            if shard.role == "slave" {
                add("the server \(shard.primary) is a replica and executes no writes", "name the primary, the sentinels or the cluster")
            }
            if shard.isClusterNode, !topology.isCluster {
                add("the server \(shard.primary) is a node of a cluster", "write redis+cluster://\(shard.primary)")
            }
            let needed = topology.isCluster ? Self.oldestOfCluster : Self.oldest
            if let version = shard.versionNumber, version < needed {
                add(
                    "the server \(shard.primary) has version \(shard.version)",
                    topology.isCluster ? "a cluster needs 7.0 or later, for sharded channels" : "use Redis 6.2 or later, or Valkey")
            }
            if !shard.evictionPolicy.isEmpty, shard.evictionPolicy != "noeviction" {
                add(
                    "the server \(shard.primary) deletes waiting jobs when its memory is full (maxmemory-policy \(shard.evictionPolicy))",
                    "set maxmemory-policy noeviction")
            }
        }
        return faults
    }

    /// The fault that a reply to a harmless command shows; nil for none. Other errors than missing rights are expected.
    static func fault(_ reply: RESPValue, to command: String, on server: String) -> Fault? {
        guard let text = reply.errorText, text.contains("NOPERM") || text.contains("ACL failure") || text.contains("no permissions") else {
            return nil
        }
        return Fault(
            problem: "the user of SLUICE_REDIS_URL may not execute \(command) on \(server) (\(text))",
            remedy: "see the ACL rule in the operating guide")
    }
}

extension RedisTopology.Shard {
    /// Major and minor version; nil when unknown.
    fileprivate var versionNumber: (Int, Int)? {
        let parts = version.split(separator: ".").compactMap { Int($0) }
        return parts.count >= 2 ? (parts[0], parts[1]) : nil
    }
}

extension JobProducer {
    /// Checks servers, versions, eviction and the rights of the user. Writes nothing that outlives the call.
    /// - Throws: when Redis does not answer.
    package func checkRedis(waitReplicas: Int) async throws(RedisError) -> [RedisCheck.Fault] {
        let topology = await topology()
        // The error says why no server is known, or why the only one does not answer.
        if !topology.shards.contains(where: \.isReachable) { _ = try await redis.send("PING") }
        var faults = RedisCheck.faults(of: topology)
        // A replica, or a node of a cluster that is addressed as a single server, executes no commands that would show the rights.
        guard topology.shards.contains(where: \.isReachable),
            topology.shards.allSatisfy({ $0.role != "slave" && (topology.isCluster || !$0.isClusterNode) })
        else { return faults }
        var checked: Set<String> = []
        for partition in 0..<keys.partitions {
            let key = keys.replicated(partition: partition)
            // One partition of each server.
            let server = redis.server(for: key) ?? "the server"
            guard redis.isReachable(key), checked.insert(server).inserted else { continue }
            faults += await missingRights(key, on: server, waitReplicas: waitReplicas)
        }
        return faults
    }

    /// Executes commands of all kinds on a key that does not exist.
    private func missingRights(_ key: String, on server: String, waitReplicas: Int) async -> [RedisCheck.Fault] {
        let probe = "return redis.call('EXISTS', KEYS[1])"
        var commands: [[RedisArgument]] = [
            ["EVAL", .string(probe), 1, .string(key)], ["EXISTS", .string(key)], ["SET", .string(key), "", "XX"],
            ["XADD", .string(key), "NOMKSTREAM", "*", "a", "b"], ["XREADGROUP", "GROUP", "a", "b", "STREAMS", .string(key), ">"],
            ["XCLAIM", .string(key), "a", "b", 0, "0-1"], ["XPENDING", .string(key), "a"], ["XINFO", "GROUPS", .string(key)],
            ["XGROUP", "DESTROY", .string(key), "a"], ["HDEL", .string(key), "a"], ["HGETALL", .string(key)], ["SREM", .string(key), "a"],
            ["SRANDMEMBER", .string(key), 1], ["ZREM", .string(key), "a"], ["ZRANGE", .string(key), 0, 0], ["EXPIRE", .string(key), 1],
            ["DEL", .string(key)], ["PUBLISH", .string(key), ""], ["SCRIPT", "LOAD", .string(probe)], ["TIME"], ["SCAN", 0, "COUNT", 1],
        ]
        if waitReplicas > 0 { commands.append(["WAIT", 0, 1]) }
        var faults: [RedisCheck.Fault] = []
        for command in commands {
            let reply: RESPValue
            do throws(RedisError) { reply = try await redis.send(command, nearKey: key) } catch {
                guard error.isRejection else {
                    return faults + [RedisCheck.Fault(problem: "\(server): \(error)", remedy: "check the server")]
                }
                reply = .error(error.message)
            }
            guard case .string(let name)? = command.first else { continue }
            if let fault = RedisCheck.fault(reply, to: name, on: server) { faults.append(fault) }
        }
        return faults
    }
}
