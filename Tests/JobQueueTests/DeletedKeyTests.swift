import Contract
import JobQueue
import RedisClient
import TestSupport
import Testing

/// Another program has deleted keys of a running job, whose worker finds out at its next renewal.
@Suite(.serialized) struct DeletedKeyTests {
    private func renewal(_ claim: Claim) -> LeaseRenewal { LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: claim.attempt) }

    /// Without the log, nothing but the claim tells which ids the readers have.
    @Test(arguments: [false, true]) func `a job without record and entry ends after what its readers have`(hasLog: Bool) async throws {
        try await QueueFixture.run { fixture in
            let (claim, received) = try await fixture.followed(QueueFixture.job())
            let record = fixture.keys.record(claim.job.id)
            _ = try await fixture.redis.command("DEL", record)
            // The entry is left: its lease expires, and a worker claims it again.
            try await fixture.consumer.endIfGone(claim)
            #expect(try await fixture.queue.record(claim.job.id) == nil)
            _ = try await fixture.redis.command("DEL", fixture.keys.queue(.standard, partition: 0))
            if !hasLog { _ = try await fixture.redis.command("DEL", fixture.keys.log(claim.job.id)) }
            #expect(try await fixture.consumer.renew([renewal(claim)]) == [.lost])
            _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "1")
            try await fixture.consumer.endIfGone(claim)
            _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "0")
            let end = try await received.wait({ "the end, \($0)" }) { $0.last?.event.isTerminal ?? false ? $0.last : nil }
            #expect(end.id == EventID(attempt: 2, sequence: 0))
            let found = try await fixture.redis.command("HMGET", record, "state", "attempt", "code")
            #expect(found.array?.map(\.string) == ["failed", "1", "internal"])
            for key in [record, fixture.keys.log(claim.job.id)] {
                #expect(try await fixture.redis.command("TTL", key).integer ?? -1 > 0, "\(key)")
            }
            // The call is repeated when its reply was lost.
            try await fixture.consumer.endIfGone(claim)
            #expect(try await fixture.queue.log(claim.job.id, after: nil).last?.id == end.id)
        }
    }

    /// A second first attempt would have ids that readers take for those of the events that they have.
    @Test(arguments: [false, true]) func `a job without record and log goes on with the next attempt`(isOutOfMemory: Bool) async throws {
        try await QueueFixture.run { fixture in
            let (claim, received) = try await fixture.followed(QueueFixture.job())
            let record = try #require(try await fixture.queue.record(claim.job.id))
            _ = try await fixture.redis.command("DEL", fixture.keys.record(claim.job.id), fixture.keys.log(claim.job.id))
            if isOutOfMemory { _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "1") }
            #expect(try await fixture.consumer.renew([renewal(claim)]) == [.lost])
            _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "0")
            // A repeated renewal, and one of a worker that has lost the lease, change nothing.
            #expect(try await fixture.consumer.renew([renewal(claim)]) == [.lost])
            // It does not wait for the lease.
            let returned = try await fixture.consumer.take(partition: 0, classes: [.standard], count: 1)
            #expect(returned.expired.map(\.id) == [claim.entry.id])
            let next = fixture.consumer("w2", token: "t2")
            guard case .claimed(let second) = try await next.claim(claim.job, entry: claim.entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(second.attempt == 2 && second.crashes == 0)
            let found = try #require(try await fixture.queue.record(claim.job.id))
            #expect(found.state == .running && found.attempt == 2)
            for field in ["owner", "class", "model", "crashes", "submitted_ms"] {
                #expect(found.fields[field] == record.fields[field], "\(field)")
            }
            _ = try await fixture.write([.restarted, .text("c")], of: second)
            let ids = try await received.wait({ "the next attempt, \($0)" }) { $0.count >= 6 ? $0.map(\.id.description) : nil }
            #expect(ids == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"])
            #expect(try await fixture.consumer.renew([renewal(claim)]) == [.lost])
            #expect(try await fixture.queue.log(claim.job.id, after: nil).last?.id == EventID(attempt: 2, sequence: 2))
        }
    }

    /// What was generated is not generated again.
    @Test(arguments: [false, true]) func `a job without a record is finished`(isOutOfMemory: Bool) async throws {
        try await QueueFixture.run { fixture in
            let (claim, received) = try await fixture.followed(QueueFixture.job())
            let record = fixture.keys.record(claim.job.id)
            let before = try #require(try await fixture.queue.record(claim.job.id))
            _ = try await fixture.redis.command("DEL", record)
            if isOutOfMemory { _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "1") }
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 3) == .integer(1))
            _ = try await fixture.redis.command("CONFIG", "SET", "maxmemory", "0")
            let end = try await received.wait({ "the end, \($0)" }) { $0.last?.event.isTerminal ?? false ? $0.last : nil }
            #expect(end.event.type == "finished")
            let found = try #require(try await fixture.queue.record(claim.job.id))
            #expect(found.state == .finished)
            for field in ["owner", "class", "model", "crashes", "attempt"] {
                #expect(found.fields[field] == before.fields[field], "\(field)")
            }
            #expect(try await fixture.redis.command("XLEN", fixture.keys.queue(.standard, partition: 0)).integer == 0)
            // The entry is gone, so that a repeated call does not end the job again.
            _ = try await fixture.redis.command("DEL", record)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 4) == .integer(0))
            #expect(try await fixture.queue.record(claim.job.id) == nil)
        }
    }

    /// Its log is empty, but knows the id up to which it takes no events.
    @Test func `a job that starts again does not repeat an attempt`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            #expect(try await fixture.consumer.handBack(renewal(claim), startsAgain: true))
            _ = try await fixture.redis.command("DEL", fixture.keys.record(claim.job.id))
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: [.standard], count: 1).expired.first)
            guard case .claimed(let next) = try await fixture.consumer.claim(claim.job, entry: entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2)
        }
    }

    /// As when a primary that was replaced has delivered the entry: neither the submission nor the delivery is on this server.
    @Test func `a job of which the server has neither record nor entry is not run`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: [.standard], count: 1).entries.first)
            let queue = fixture.keys.queue(.standard, partition: 0)
            _ = try await fixture.redis.command("DEL", fixture.keys.record(job.id))
            _ = try await fixture.redis.command("XACK", queue, Keys.group, entry.id)
            guard case .gone = try await fixture.consumer.claim(job, entry: entry, leaseExpired: false) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(try await fixture.redis.command("EXISTS", fixture.keys.record(job.id), fixture.keys.log(job.id)).integer == 0)
            // Nothing is deleted: this server may yet deliver it.
            #expect(try await fixture.redis.command("XLEN", queue).integer == 1)
        }
    }
}
