import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// A client of a real Redis Cluster of six servers.
@Suite(.serialized) struct ClusterTests {
    /// A key of each of the three primaries' slot ranges.
    private static let keys = ["b", "c", "a"]

    private static func increment(_ key: String) -> RedisScript {
        RedisScript(name: "increment", source: "redis.call('PUBLISH', KEYS[1], 'n') return redis.call('INCR', KEYS[1])")
    }

    @Test func `commands reach all shards, slots move under load, and a primary dies`() async throws {
        try await withCluster { cluster in
            let log = CapturedLog()
            try await withClient(cluster.url, log: log) { redis in
                try await reachAllShards(redis)
                try await moveUnderLoad(redis, cluster)
                try await refuseScriptsWhileSlotMoves(redis, cluster)
                try await killPrimary(redis, cluster)
            }
            try await followSubscriptions(cluster)
        }
    }

    private func reachAllShards(_ redis: RedisClient) async throws {
        #expect(Set(Self.keys.map { HashSlot.of($0) / 5_461 }) == [0, 1, 2])
        var pipeline = redis.makePipeline()
        for key in Self.keys { pipeline.append("SET", .string(key), .string(key)) }
        pipeline.append("PING")
        for key in Self.keys.reversed() { pipeline.append("GET", .string(key)) }
        let expected: [RESPValue] =
            Array(repeating: .simple("OK"), count: 3) + [.simple("PONG")] + Self.keys.reversed().map { .bulk(ByteBuffer(string: $0)) }
        #expect(try await redis.send(pipeline) == expected)
        #expect(redis.isConnected && redis.uncoveredSlots == 0)
        #expect(Set(Self.keys.map { redis.server(for: $0) }).count == 3)
        #expect(Set(Self.keys.map { redis.connections(for: $0) }).count == 3)
        // A script is loaded at each shard.
        for key in ["{b}s", "{c}s", "{a}s"] {
            for expected in 1...2 {
                #expect(try await redis.run(Self.increment(key), keys: [key], arguments: []) == .integer(Int64(expected)))
            }
        }
        await #expect(throws: RedisError.self) { _ = try await redis.send("DEL", "a", "b") }
    }

    private func moveUnderLoad(_ redis: RedisClient, _ cluster: PrivateCluster) async throws {
        let slot = HashSlot.of("a")
        let source = try #require(try await cluster.owner(of: slot))
        let target = try #require(cluster.servers.prefix(3).first { $0 !== source })
        let number = redis.connections(for: "a")
        let stop = Observed(false)
        async let count = withThrowingTaskGroup(of: Int.self) { tasks in
            for task in 0..<8 {
                tasks.addTask {
                    var count = 0
                    while !stop.read({ $0 }) {
                        count += 1
                        // A single key, keys that do not exist yet, and a script with two keys.
                        #expect(try await redis.send("INCR", "{a}counter-\(task)") == .integer(Int64(count)))
                        #expect(try await redis.send("SET", "{a}new-\(task)-\(count)", "x") == .simple("OK"))
                        let both = RedisScript(name: "both", source: "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])")
                        let reply = try await redis.run(both, keys: ["{a}one-\(task)", "{a}two-\(task)"], arguments: [])
                        #expect(reply == .integer(Int64(count)))
                    }
                    return count
                }
            }
            return try await tasks.reduce(0, +)
        }
        for server in [target, source] { try await cluster.move(slot, to: server) }
        try await cluster.move(slot, to: target)
        stop.update { $0 = true }
        #expect(try await count > 0)
        try await until("the slot to be known at its new node") { redis.server(for: "a") == "127.0.0.1:\(target.port)" }
        #expect(redis.connections(for: "a") > number)
    }

    /// A script that uses more keys than it declares is executed as a whole or not at all.
    private func refuseScriptsWhileSlotMoves(_ redis: RedisClient, _ cluster: PrivateCluster) async throws {
        let counts = RedisScript(name: "counts", source: "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1] .. ':undeclared')")
        let undeclared = RedisScript(name: "undeclared", source: "return redis.call('INCR', KEYS[1] .. ':undeclared')")
        #expect(try await redis.run(counts, keys: ["{c}one"], arguments: []) == .integer(1))
        #expect(try await redis.run(undeclared, keys: ["{c}two"], arguments: []) == .integer(1))
        let slot = HashSlot.of("c")
        let source = try #require(try await cluster.owner(of: slot))
        let target = try #require(cluster.servers.prefix(3).first { $0 !== source })
        try await cluster.move(slot, to: target, first: ["{c}one:undeclared"]) {
            for (script, key) in [(counts, "{c}one"), (undeclared, "{c}two")] {
                await #expect(throws: RedisError.self) {
                    _ = try await redis.run(script, keys: [key], arguments: [], timeout: .milliseconds(200))
                }
            }
        }
        #expect(try await redis.run(counts, keys: ["{c}one"], arguments: []) == .integer(2))
        #expect(try await redis.send("GET", "{c}one").integer == 2)
        #expect(try await redis.run(undeclared, keys: ["{c}two"], arguments: []) == .integer(2))
        try await cluster.move(slot, to: source)
        #expect(try await redis.send("GET", "{c}two:undeclared").integer == 2)
        try await until("the slot to be known at its former node") { redis.server(for: "c") == "127.0.0.1:\(source.port)" }
    }

    private func killPrimary(_ redis: RedisClient, _ cluster: PrivateCluster) async throws {
        let slot = HashSlot.of("b")
        let primary = try #require(try await cluster.owner(of: slot))
        let number = redis.connections(for: "b")
        await primary.kill()
        // The other shards are served meanwhile.
        #expect(try await redis.send("SET", "c", "2") == .simple("OK"))
        let promoted = try await cluster.newOwner(of: slot, after: primary)
        try await until("a write to the promoted replica") {
            guard let reply = try? await redis.send("SET", "b", "2") else { return false }
            return reply == .simple("OK")
        }
        #expect(redis.server(for: "b") == "127.0.0.1:\(promoted.port)")
        #expect(redis.connections(for: "b") > number)
    }

    /// Sharded channels: a slot that moves takes its subscriptions along.
    private func followSubscriptions(_ cluster: PrivateCluster) async throws {
        try await withClient(cluster.url) { redis in
            try await withSubscriber(cluster.url) { subscriber in
                let received = Observed<[String]>([])
                let lost = Observed(0)
                subscriber.eventLoop.execute {
                    for key in Self.keys {
                        subscriber.subscribe("{\(key)}news") { event in
                            switch event {
                            case .message(let text): received.update { $0.append(String(buffer: text)) }
                            case .lost: lost.update { $0 += 1 }
                            case .subscribed: break
                            }
                        }
                    }
                }
                func publish(_ key: String, _ text: String) async throws {
                    try await until("a message of \(key)") {
                        _ = try await redis.send("PUBLISH", .string("{\(key)}news"), .string(text))
                        return received.read { $0.contains(text) }
                    }
                }
                for key in Self.keys { try await publish(key, "first \(key)") }
                #expect(subscriber.isAlive)
                let slot = HashSlot.of("c")
                let source = try #require(try await cluster.owner(of: slot))
                let target = try #require(try await cluster.owner(of: 16_000))
                #expect(source !== target)
                lost.update { $0 = 0 }
                try await cluster.move(slot, to: target)
                try await publish("c", "second c")
                #expect(lost.read { $0 } > 0)
                await target.kill()
                _ = try await cluster.newOwner(of: slot, after: target)
                for key in Self.keys { try await publish(key, "third \(key)") }
            }
        }
    }

    @Test func `a server without cluster mode is reported`() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            var settings = RedisSettings.forTests
            settings.commandTimeout = .milliseconds(300)
            try await withClient("redis+cluster://127.0.0.1:\(server.port)", settings: settings, log: log) { redis in
                #expect(await code { try await redis.send("GET", "a") } == .unavailable)
                try await until("a log line") { log.lines.read { $0.contains { $0.metadata.contains("cluster support disabled") } } }
            }
        }
    }
}
