import Contract
import RedisClient
import Support
import TestSupport
import Testing

@testable import JobQueue

struct QueueDepthTests {
    @Test func `entries are counted when Redis does not report the lag`() async throws {
        try await QueueFixture.run { fixture in
            try await fixture.consumer.createGroups()
            var entries: [String] = []
            for number in 0..<4 {
                let job = #"{"id":"p0-\#(number)","request":{}}"#
                let reply = try await fixture.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", job)
                entries.append(try #require(reply.string))
            }
            // One entry is delivered, and an undelivered one in the middle is deleted: Redis no longer knows the lag.
            // As a worker that blocks on the queue receives it.
            try await fixture.redis.command("XREADGROUP", "GROUP", Keys.group, "w9", "COUNT", "1", "STREAMS", "{sluice.0}:queue:batch", ">")
            _ = try await fixture.redis.command("XDEL", "{sluice.0}:queue:batch", entries[2])
            let groups = try await fixture.redis.command("XINFO", "GROUPS", "{sluice.0}:queue:batch")
            let group = try #require(groups.array?.first?.array)
            // Redis 6.2 never reports it.
            let place = group.firstIndex { $0.string == "lag" }
            #expect(place.map { group[$0 + 1].string == nil } ?? true, "precondition of the test: \(group)")

            let depth = try await fixture.consumer.depth()
            let batch = try #require(depth.classes[.batch])
            #expect(batch.entries == 3 && batch.pending == 1 && batch.lag == 2 && batch.oldestWaitMilliseconds != nil)
            #expect(depth.entries == 3, "the entries that need a slot")
            let snapshot = try await fixture.queue.snapshot()
            #expect(snapshot.queues[2].waiting == 2 && snapshot.queues[2].running == 1 && snapshot.queues[2].lag == nil)

            // Waiting entries that are sorted by tenant still count as waiting, also when one of them was deleted.
            _ = try #require(try await fixture.consumer.take(partition: 0, classes: [.batch], count: 1).entries.first)
            try await fixture.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", #"{"id":"p0-9","request":{}}"#)
            try await fixture.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", #"{"id":"p0-10","request":{}}"#)
            _ = try #require(try await fixture.consumer.take(partition: 0, classes: [.batch], count: 1).entries.first)
            try await fixture.redis.command("XDEL", "{sluice.0}:queue:batch", entries[3])
            let sorted = try #require(try await fixture.consumer.depth().classes[.batch])
            #expect(sorted.entries - sorted.pending == sorted.lag && sorted.oldestWaitMilliseconds != nil, "\(sorted)")
            let later = try await fixture.queue.snapshot()
            #expect(later.queues[2].running == 3 && later.queues[2].waiting == sorted.lag, "\(later)")
            #expect(later.queues[2].lag == (place == nil ? nil : sorted.lag), "\(later)")
        }
    }

    @Test func `the depth is one line of text, and other text is none`() throws {
        var depth = QueueDepth(classes: Dictionary(uniqueKeysWithValues: JobClass.allCases.map { ($0, QueueDepth.Class()) }))
        #expect(depth.text == "0 0 0 0 -1 0 0 0 -1 0 0 0 -1")
        #expect(QueueDepth(text: depth.text) == depth)
        depth.deadLetters = 7
        depth.classes[.batch] = QueueDepth.Class(entries: 9, pending: 4, lag: 5, oldestWaitMilliseconds: 12)
        #expect(QueueDepth(text: depth.text) == depth)
        let numbers = depth.text.split(separator: " ")
        for text in [
            "", "0", depth.text + " 1", depth.text + " ", numbers.dropLast().joined(separator: " "), "x" + depth.text,
            "-2" + depth.text.dropFirst(),
            "99999999999999999999" + depth.text.dropFirst(),
        ] {
            #expect(QueueDepth(text: text) == nil, "\(text)")
        }
        let large = "\(Int.max) " + numbers.dropFirst().joined(separator: " ")
        #expect(try #require(QueueDepth(text: large)).deadLetters.saturatingAdding(1) > 0, "sums do not overflow")
    }

    @Test func `workers share one measurement of the depth for half a renewal interval`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(600)
        try await QueueFixture.run(settings: settings) { fixture in
            try await fixture.consumer.createGroups()
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.sharedDepth().entries == 0)
            _ = try await fixture.running(QueueFixture.job("p0-1"))
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            #expect(try await fixture.consumer.sharedDepth().entries == 0, "as the other worker has measured it")
            #expect(try await LeaseIndexTests.calls(fixture)["evalsha"] == nil)
            let expiry = try #require(try await fixture.redis.command("PTTL", fixture.keys.depth).integer)
            #expect(expiry > 0 && expiry <= fixture.consumer.settings.renewalInterval.wholeMilliseconds / 2)
            // What no worker has written is measured again.
            for spoilt in [[], ["SET", fixture.keys.depth, "x"], ["HSET", fixture.keys.depth, "x", "1"]] {
                try await fixture.redis.command("DEL", fixture.keys.depth)
                if !spoilt.isEmpty { _ = try await fixture.consumer.redis.send(spoilt.map { .string($0) }) }
                #expect(try await fixture.consumer.sharedDepth().entries == 1)
                #expect(try await other.sharedDepth().entries == 1)
            }
        }
    }

    @Test func `workers are listed by the time of Redis, and removed four leases after their last heartbeat`() async throws {
        try await QueueFixture.run { fixture in
            let now = try await fixture.redis.command("TIME").array?.first?.integer ?? 0
            let lease = fixture.consumer.settings.leaseMilliseconds
            try await fixture.redis.command(
                "ZADD", fixture.keys.workers, "\(now * 1_000 - 4 * lease - 5_000)", "old", "\(now * 1_000 - 3 * lease)", "recent")
            // The script is loaded, then missing.
            for _ in 0..<2 {
                let reply = try await fixture.consumer.writeHeartbeat(WorkerReport())
                #expect(reply.rejection == nil && reply.workers == 2)
                let names = try await fixture.redis.command("ZRANGE", fixture.keys.workers, "0", "-1").array?.map(\.string)
                #expect(names == ["recent", fixture.consumer.worker])
                let score = try #require(try await fixture.redis.command("ZSCORE", fixture.keys.workers, fixture.consumer.worker).string)
                #expect(try #require(Double(score)) >= Double(now * 1_000))
                try await fixture.redis.command("SCRIPT", "FLUSH")
            }
            try await fixture.redis.command("SET", fixture.keys.workers, "other data")
            #expect(try await fixture.consumer.writeHeartbeat(WorkerReport()).workers == 1)
        }
    }
}
