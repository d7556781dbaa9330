import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Values in Redis that no node has written may fail a job, but must never end the process.
@Suite(.serialized) struct SpoiltValueTests {
    @Test func `a log with invalid ids is read to its end once`() async throws {
        try await QueueFixture.run { fixture in
            let id = QueueFixture.job().id
            let event = #"{"id":"1-1","type":"text","text":"a"}"#
            // More than a page of ids beyond 2^53, all with an event that has another id.
            let fill = """
                for i = 0, 1499 do redis.call('XADD', KEYS[1], '9223372036854775807-' .. i, 'e', ARGV[1]) end
                return redis.call('XLEN', KEYS[1])
                """
            _ = try await fixture.redis.command("XADD", fixture.keys.log(id), "1-1", "e", event)
            #expect(try await fixture.redis.command("EVAL", fill, "1", fixture.keys.log(id), event) == .integer(1_501))
            #expect(try await fixture.queue.log(id, after: nil).map(\.id.description) == ["1-1"])
        }
    }
}
