import Contract
import JobQueue
import RedisClient
import TestSupport
import Testing

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
}
