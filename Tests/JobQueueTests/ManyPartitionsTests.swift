import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// The cost of looking at many partitions.
struct ManyPartitionsTests {
    private static func run(_ partitions: Int = 1_024, _ body: @escaping @Sendable (QueueFixture) async throws -> Void) async throws {
        var settings = QueueSettings()
        settings.keys = Keys(partitions: partitions)
        try await QueueFixture.run(settings: settings, body)
    }

    /// The commands that look at partitions. Others keep or open connections.
    private static let looks = ["exists", "zrangebyscore", "zcount", "set", "evalsha", "eval", "xpending", "zrange"]

    /// The number of commands by which `body` looks at partitions.
    private static func commands(_ fixture: QueueFixture, _ body: () async throws -> Void) async throws -> Int {
        try await fixture.redis.command("CONFIG", "RESETSTAT")
        try await body()
        let calls = try await LeaseIndexTests.calls(fixture)
        return Self.looks.reduce(0) { $0 + (calls[$1] ?? 0) }
    }

    @Test func `partitions with entries are found with few commands`() async throws {
        try await Self.run { fixture in
            let all = Set(0..<1_024)
            let none = try await Self.commands(fixture) { _ = try await fixture.consumer.partitionsWithEntries(all) }
            #expect(none <= 4, "\(none) commands")
            let job = QueueFixture.job("p700-\(ULID(milliseconds: 1))")
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            // An undelivered entry is for the blocking reads.
            #expect(try await fixture.consumer.partitionsWithEntries(all).isEmpty)
            _ = try await fixture.consumer.take(partition: 700, classes: JobClass.allCases, count: 1)
            #expect(try await fixture.consumer.partitionsWithEntries(all) == [700])
            #expect(try await fixture.consumer.partitionsWithEntries([699, 701]).isEmpty)
        }
    }

    @Test func `a cluster is asked for all partitions of a server at once`() async throws {
        var options = PrivateCluster.Options()
        options.replicas = 0
        try await withCluster(options) { cluster in
            var settings = QueueSettings()
            settings.keys = Keys(partitions: 1_024)
            try await QueueConnection.with(url: RedisURL(cluster.url), queue: settings) { [settings] connection in
                let client = connection.queue.redis
                let consumer = JobConsumer(redis: client, blocking: client, settings: settings, worker: "w1", token: "t1")
                let all = Set(0..<1_024)
                try await until("all servers to be connected") { all.allSatisfy { consumer.isReachable(partition: $0) } }
                #expect(try await consumer.partitionsWithEntries(all).isEmpty)
                for partition in [0, 700, 1_023] {
                    _ = try await cluster.command("ZADD", key: "{sluice.\(partition)}:leases:standard", "1", "1-0")
                }
                #expect(try await consumer.partitionsWithEntries(all) == [0, 700, 1_023])
                #expect(try await consumer.partitionsWithEntries([1, 700]) == [700])
            }
        }
    }

    @Test func `due webhooks are found with one command while there are none`() async throws {
        try await Self.run { fixture in
            let none = try await Self.commands(fixture) { _ = try await fixture.consumer.partitionsWithWebhooks() }
            #expect(none == 1)
            for (partition, time) in [(3, "1"), (900, "1"), (901, "9999999999999")] {
                try await fixture.redis.command("ZADD", "{sluice.\(partition)}:webhooks", time, "job")
            }
            #expect(try await fixture.consumer.partitionsWithWebhooks() == [3, 900])
        }
    }

    @Test func `a walk looks at all partitions after the loss of a worker only`() async throws {
        try await Self.run(64) { fixture in
            let quiet = try await Self.commands(fixture) { _ = try await fixture.consumer.walkPending() }
            #expect(quiet < 50, "\(quiet) commands")
            // An entry whose delivery got lost with its worker.
            let queue = "{sluice.50}:queue:standard"
            try await fixture.redis.command("XADD", queue, "*", "job", "{}")
            try await fixture.redis.command("XREADGROUP", "GROUP", Keys.group, "lost", "COUNT", "1", "STREAMS", queue, ">")
            let id = try await fixture.redis.command("XRANGE", queue, "-", "+").array?.first?.array?.first?.string ?? ""
            try await fixture.redis.command("XCLAIM", queue, Keys.group, "lost", "0", id, "IDLE", "999999")
            try await fixture.redis.command("ZADD", "{sluice}:workers", "1", "lost")
            try await fixture.redis.command("DEL", "{sluice}:walk")
            #expect(try await fixture.consumer.walkPending()?.added == 1)
            #expect(try await fixture.consumer.partitionsWithEntries([50]) == [50])
        }
    }
}
