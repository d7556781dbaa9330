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

    /// An id that a worker could have written, and ids that none writes.
    private static let foreignIDs = [
        "7-3", "2147483647-0", "1796047844025-0", "18446744073709551615-18446744073709551614", "18446744073709551615-18446744073709551615",
    ]

    /// Otherwise the job would be claimed again and again, and would occupy a slot.
    @Test(arguments: foreignIDs) func `a job whose log has later events runs and ends`(_ foreign: String) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            try await fixture.redis.command("XADD", fixture.keys.log(job.id), foreign, "x", "y")
            let claim = try await fixture.claimNext()
            // Readers ignore events of older attempts.
            #expect(claim.attempt == (foreign == "7-3" ? 8 : 1))
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await fixture.queue.record(job.id)?.state == .finished)
            #expect(try await fixture.queue.log(job.id, after: nil).last?.event.type == "finished")
        }
    }

    @Test func `the log of a finished job keeps its events whatever ids it has had`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a"), .text("b")], of: claim)
            try await fixture.redis.command("XSETID", fixture.keys.log(claim.job.id), "99-99")
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 3) == .integer(1))
            #expect(try await fixture.queue.log(claim.job.id, after: nil).map(\.id.description) == ["1-0", "1-1", "1-2", "1-3"])
        }
    }

    /// Events can be deleted without the ids that they had.
    @Test func `a job whose log has had later events runs`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            let log = fixture.keys.log(job.id)
            for id in ["3-1", "1796047844025-0"] { try await fixture.redis.command("XADD", log, id, "x", "y") }
            try await fixture.redis.command("XDEL", log, "1796047844025-0")
            #expect(try await fixture.claimNext().attempt == 4)
            #expect(try await fixture.queue.log(job.id, after: nil).map(\.event.type) == ["started"])
        }
    }

    @Test(arguments: foreignIDs) func `a waiting job whose log has later events can be interrupted`(_ foreign: String) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            try await fixture.redis.command("XADD", fixture.keys.log(job.id), foreign, "x", "y")
            _ = try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: nil)
            #expect(try await fixture.queue.record(job.id)?.state == .interrupted)
            #expect(try await fixture.queue.log(job.id, after: nil).last?.event.type == "interrupted")
        }
    }

    /// Found by a renewal, or by the end of the job, whose worker then knows it no more.
    @Test(arguments: ["2147483647", "-inf", "x"], [false, true])
    func `a running job whose attempt is no number of one is started again`(_ attempt: String, isRenewed: Bool) async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            try await fixture.redis.command("HSET", fixture.keys.record(claim.job.id), "attempt", attempt)
            var entry = claim.entry
            if isRenewed {
                #expect(try await fixture.consumer.renew([LeaseRenewal(id: claim.job.id, entry: entry, attempt: 1)]) == [.lost])
                entry = try #require(try await fixture.consumer.take(partition: 0, classes: [.standard], count: 1).expired.first)
            } else {
                #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(0))
            }
            guard
                case .claimed(let next) = try await fixture.consumer.claim(
                    claim.job, entry: entry, leaseExpired: true, knownAttempt: isRenewed ? 1 : 0)
            else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(next.attempt == 2)
            #expect(try await fixture.finish(next, .finished(.stop, .none), at: 1) == .integer(1))
        }
    }
}
