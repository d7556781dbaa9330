import Contract
import Logging
import NIOPosix
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// What `sluice config check --connect` finds, and the topology that `sluice status` shows.
@Suite struct RedisCheckTests {
    private typealias Findings = (faults: [RedisCheck.Fault], topology: RedisTopology)

    private static func check(_ url: String) async throws -> Findings {
        try await QueueConnection.with(url: RedisURL(url)) { connection in
            (try await connection.queue.checkRedis(waitReplicas: 1), await connection.queue.topology())
        }
    }

    /// Repeats the check while the server does not answer in time, as on a busy machine.
    private static func checkInTime(_ url: String) async throws -> Findings {
        try await until("\(url) to answer in time") {
            guard let found = try? await check(url) else { return nil }
            let isLate = found.faults.contains { $0.problem.contains("deadline") || $0.problem.contains("does not answer") }
            return found.topology.shards.allSatisfy(\.isReachable) && !isLate ? found : nil
        }
    }

    /// Whether the check succeeds and finds this. A check may fail on a busy machine.
    private static func finds(_ url: String, _ condition: (Findings) -> Bool) async -> Bool {
        guard let found = try? await check(url) else { return false }
        return condition(found)
    }

    @Test func `a server that suits has no faults`() async throws {
        try await withRedis { redis in
            let (faults, topology) = try await Self.checkInTime(redis.url)
            #expect(faults == [])
            #expect(topology.shards.count == 1 && topology.shards[0].primary == "127.0.0.1:\(redis.port)" && !topology.isCluster)
            #expect(topology.shards[0].role == "master" && topology.shards[0].isReachable && topology.shards[0].partitions == [0])
        }
    }

    @Test func `eviction, a replica, and the node of a cluster`() async throws {
        try await withRedis(PrivateRedis.Options(arguments: ["--maxmemory-policy", "allkeys-lru"])) { primary in
            let faults = try await Self.checkInTime(primary.url).faults
            #expect(faults.count == 1 && faults.first?.remedy == "set maxmemory-policy noeviction", "\(faults)")
            let options = PrivateRedis.Options(arguments: ["--replicaof", "127.0.0.1", "\(primary.port)"])
            try await withRedis(options) { replica in
                try await until("the replica to be listed") {
                    await Self.finds(primary.url) { $0.topology.shards.first?.replicas.count == 1 }
                }
                try await until("the replica to be reported") {
                    await Self.finds(replica.url) { $0.faults.contains { $0.problem.contains("is a replica") } }
                }
            }
        }
        try await withRedis(PrivateRedis.Options(arguments: ["--cluster-enabled", "yes", "--cluster-port", "\(Ports.free())"])) { node in
            try await node.command("CLUSTER", "ADDSLOTSRANGE", "0", "9999")
            try await until("the node of a cluster to be reported") {
                await Self.finds(node.url) { $0.faults.contains { $0.remedy == "write redis+cluster://127.0.0.1:\(node.port)" } }
            }
            try await until("the missing slots to be reported") {
                await Self.finds("redis+cluster://127.0.0.1:\(node.port)") { found in
                    found.faults.contains { $0.problem.contains("6384 of 16384 slots") }
                }
            }
        }
    }

    @Test func `a shard of a cluster that does not answer is left out of the snapshot`() async throws {
        var options = PrivateCluster.Options()
        (options.replicas, options.nodeTimeout) = (0, 60_000)
        try await withCluster(options) { cluster in
            var settings = QueueSettings()
            settings.keys = Keys(partitions: 16)
            let node = try await cluster.slot(of: settings.keys.workers)
            let owner = try #require(try await cluster.owner(of: node))
            let frozen = try #require(try await cluster.otherPrimary(than: owner))
            try await QueueConnection.with(url: RedisURL(cluster.url), queue: settings) { connection in
                let queue = connection.queue
                #expect(try await queue.submit(QueueFixture.job("p1-\(ULID(milliseconds: 1))"), options: SubmitOptions()) == .accepted)
                // On a busy machine a server may take longer to answer than a shard is waited for.
                let whole = try await until("all shards to answer") { () -> DeploymentSnapshot? in
                    guard let snapshot = try? await queue.snapshot() else { return nil }
                    return snapshot.unreadPartitions == 0 && snapshot.areNodesKnown ? snapshot : nil
                }
                #expect(whole.waiting == 1 && whole.milliseconds > 0)
                let lost = await queue.topology().shards.first { $0.primary.hasSuffix(":\(frozen.port)") }?.partitions ?? []
                #expect(!lost.isEmpty)
                frozen.freeze()
                let part = try await until("the two others to answer") { () -> DeploymentSnapshot? in
                    guard let snapshot = try? await queue.snapshot() else { return nil }
                    return snapshot.unreadPartitions == lost.count && snapshot.areNodesKnown ? snapshot : nil
                }
                #expect(part.waiting == (lost.contains(1) ? 0 : 1) && part.milliseconds > 0)
                try await until("the topology to show one that does not answer") {
                    let shards = await queue.topology().shards
                    return shards.count { $0.isReachable } == 2
                        && shards.contains { !$0.isReachable && $0.primary.hasSuffix(":\(frozen.port)") }
                }
                frozen.thaw()
            }
        }
    }

    @Test func `missing rights are named`() async throws {
        try await withRedis { redis in
            try await redis.send(["ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-xclaim", "-eval", "-publish"])
            let faults = try await Self.checkInTime("redis://narrow:secret@127.0.0.1:\(redis.port)").faults
            #expect(faults.count == 3, "\(faults)")
            for name in ["XCLAIM", "EVAL", "PUBLISH"] { #expect(faults.contains { $0.problem.contains("may not execute \(name) ") }) }
        }
    }

    @Test func `a server that answers only some questions is reported`() async throws {
        try await withRedis(PrivateRedis.Options(arguments: ["--maxmemory-policy", "allkeys-lru"])) { redis in
            let rights = ["+@all", "-info", "+info|replication", "+info|server"]
            try await redis.send(["ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*"] + rights)
            try await until("the missing answer to be reported") {
                await Self.finds("redis://narrow:secret@127.0.0.1:\(redis.port)") { found in
                    !found.topology.shards[0].isReachable && found.faults.contains { $0.remedy.contains("the ACL rule for INFO") }
                }
            }
        }
    }

    @Test func `old versions`() {
        var shard = RedisTopology.Shard(primary: "h:1")
        shard.add(info: "redis_version:6.2.5\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n")
        var topology = RedisTopology(isCluster: false, shards: [shard])
        #expect(RedisCheck.faults(of: topology).isEmpty == false)
        shard.isReachable = true
        topology.shards = [shard]
        #expect(RedisCheck.faults(of: topology) == [])
        topology.isCluster = true
        #expect(RedisCheck.faults(of: topology).map(\.remedy) == ["a cluster needs 7.0 or later, for sharded channels"])
    }

    @Test func `the lag of replicas`() {
        var shard = RedisTopology.Shard(primary: "h:1")
        shard.add(info: "role:master\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=0\r\nmaster_repl_offset:100\r\n")
        #expect(shard.replicas == [RedisTopology.Replica(address: "10.0.0.2:6379", state: "online", lagBytes: 10)])
    }
}
