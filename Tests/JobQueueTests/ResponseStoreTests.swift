import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

struct ResponseStoreTests {
    @Test func `a continued response is kept longer, never shorter, and a running job without expiry`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job("p0-r"))
            let store = ResponseStore(queue: fixture.queue, ttl: .seconds(1_000), maximumBytes: 0)
            let response = StoredResponse(
                owner: "tenant-a", created: 1, isBackground: false, summarizes: false, echo: JSONObject(), items: [])
            #expect(try await store.save(claim.job.id, response))
            let (key, ledger, record) = ("{sluice.0}:response:p0-r", "{sluice.0}:response-bytes:tenant-a", "{sluice.0}:job:p0-r")
            try await fixture.redis.command("EXPIRE", key, "5000")
            try await fixture.redis.command("EXPIRE", ledger, "10")
            try await store.touch(claim.job.id, owner: "tenant-a")
            #expect(try await fixture.redis.command("TTL", key).integer ?? 0 > 4_000)
            #expect(try await fixture.redis.command("TTL", ledger).integer ?? 0 > 900)
            #expect(try await fixture.redis.command("TTL", record) == .integer(-1))
            // An ended job is kept as long as its response.
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            try await fixture.redis.command("EXPIRE", record, "10")
            try await store.touch(claim.job.id, owner: "tenant-a")
            #expect(try await fixture.redis.command("TTL", record).integer ?? 0 > 900)
        }
    }

    @Test func `a discarded history refuses older attempts although the log was lost`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job("p0-d"))
            try await fixture.redis.command("DEL", "{sluice.0}:log:p0-d")
            #expect(
                try await fixture.consumer.handBack(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1), startsAgain: true))
            #expect(try await fixture.redis.command("XLEN", "{sluice.0}:log:p0-d") == .integer(0))
            #expect(try await fixture.write([.text("late")], of: claim, from: 5)[0].errorText?.contains("equal or smaller") == true)
        }
    }
}
