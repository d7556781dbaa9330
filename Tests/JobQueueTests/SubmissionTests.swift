import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Admission of submissions, and repeated submissions of the same job.
@Suite(.serialized) struct SubmissionTests {
    @Test func `a full queue refuses submissions`() async throws {
        var settings = QueueSettings()
        settings.queueMaximum = 2
        try await QueueFixture.run(settings: settings) { fixture in
            for _ in 0..<2 {
                #expect(
                    try await fixture.queue.submit(QueueFixture.job("p0-\(ULID(milliseconds: 1))"), options: SubmitOptions()) == .accepted)
            }
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-x"), options: SubmitOptions()) == .full)
            // Running jobs do not count as waiting.
            _ = try await fixture.claimNext()
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-x"), options: SubmitOptions()) == .accepted)
        }
    }

    /// A job no longer counts for its owner however it leaves the queue or is lost from it.
    @Test func `an owner's waiting jobs are limited and counted exactly`() async throws {
        var settings = QueueSettings()
        settings.ownerQueueMaximum = 1
        try await QueueFixture.run(settings: settings) { fixture in
            let (queue, waiting) = (fixture.queue, fixture.keys.waiting(of: "tenant-a", partition: 0))
            func submit(_ owner: String? = "tenant-a", late: Bool = false, in priority: JobClass = .standard) async throws -> (
                Submission, JobID
            ) {
                var job = QueueFixture.job("p0-\(ULID(milliseconds: 1))", owner: owner)
                job.priority = priority
                if late { job.deadlineMilliseconds = 1 }
                return (try await queue.submit(job, options: SubmitOptions()), job.id)
            }
            func take() async throws -> ClaimOutcome {
                let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
                return try await fixture.consumer.claim(try Job(parsing: entry.job ?? []), entry: entry, leaseExpired: false)
            }
            // Claimed.
            #expect(try await submit().0 == .accepted)
            #expect(try await submit(in: .batch).0 == .ownerFull)
            for owner in ["tenant-b", nil, nil] { #expect(try await submit(owner).0 == .accepted) }
            for _ in 0..<4 { _ = try await take() }
            // Interrupted in the queue.
            let second = try await submit()
            #expect(second.0 == .accepted)
            _ = try await queue.interrupt(second.1, reason: "USER_STOP", owner: nil)
            #expect(try await fixture.redis.command("EXISTS", waiting).integer == 0)
            // Interrupt key found, and deadline passed, at the claim.
            let third = try await submit()
            #expect(third.0 == .accepted)
            try await fixture.redis.command("SET", fixture.keys.interrupt(third.1), "x")
            #expect(try await take() == .ended(nil))
            #expect(try await submit(late: true).0 == .accepted)
            #expect(try await take() == .ended(.deadlineExceeded))
            // Rejected by a worker that cannot parse it: the job fails, although it has a record.
            let odd = try await submit()
            #expect(odd.0 == .accepted)
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            try await fixture.consumer.reject(entry, id: odd.1, message: "odd", toDeadLetters: false)
            #expect(try await queue.record(odd.1)?.state == .failed)
            // Entry, queue and database deleted by others.
            #expect(try await submit().0 == .accepted)
            let gone = try await fixture.redis.command("XRANGE", fixture.keys.queue(.standard, partition: 0), "-", "+").array?.last
            try await fixture.redis.command("XDEL", fixture.keys.queue(.standard, partition: 0), try #require(gone?.array?.first?.string))
            #expect(try await submit().0 == .accepted)
            try await fixture.redis.command("DEL", fixture.keys.queue(.standard, partition: 0))
            #expect(try await submit().0 == .accepted)
            #expect(try await submit().0 == .ownerFull)
            let rest = try #require(try await fixture.redis.command("TTL", waiting).integer)
            #expect((1...86_400).contains(rest))
            try await fixture.redis.command("FLUSHALL")
            try await fixture.consumer.createGroups()
            #expect(try await submit().0 == .accepted)
            _ = try await take()
            #expect(try await fixture.redis.command("EXISTS", waiting).integer == 0)
            // Added by XADD: not counted, so its claim subtracts nothing.
            _ = try await submit()
            try await fixture.redis.command(
                "XADD", fixture.keys.queue(.interactive, partition: 0), "*", "job", #"{"id":"by-hand","owner":"tenant-a","request":{}}"#)
            _ = try await take()
            #expect(try await submit().0 == .ownerFull)
        }
    }

    @Test func `an idempotency key accepts one job`() async throws {
        try await QueueFixture.run { fixture in
            var answers: [Submission] = []
            for (id, digest) in [("p0-first", "d1"), ("p0-second", "d1"), ("p0-third", "d2")] {
                var options = SubmitOptions()
                options.idempotency = (key: "k", digest: digest)
                answers.append(try await fixture.queue.submit(QueueFixture.job(id), options: options))
            }
            #expect(answers == [.accepted, .repeated(JobID("p0-first")!), .conflict])
            let waiting = try await fixture.redis.command("XLEN", "{sluice.0}:queue:standard")
            #expect(waiting == .integer(1))
        }
    }

    /// A request is written into its session before its job, without waiting for the reply; the submission checks that it was written.
    @Test func `a job is refused if its session was not saved`() async throws {
        try await QueueFixture.run { fixture in
            let session = fixture.keys.session("p0-s")
            var options = SubmitOptions()
            (options.gateway, options.session) = ("g1", (epoch: 7, field: "r:1"))
            func submit() async throws -> Submission {
                var job = QueueFixture.job()
                job.session = "p0-s"
                return try await fixture.queue.submit(job, options: options)
            }
            try await fixture.redis.command("HSET", session, "gateway", "g1", "epoch", "7")
            #expect(try await submit() == .sessionUnsaved)
            try await fixture.redis.command("HSET", session, "r:1", "[]")
            #expect(try await submit() == .accepted)
            // Another gateway has taken over the session, and possibly returned it.
            for (gateway, epoch) in [("g2", "8"), ("g1", "9")] {
                try await fixture.redis.command("HSET", session, "gateway", gateway, "epoch", epoch)
                #expect(try await submit() == .sessionLost)
            }
            #expect(try await fixture.redis.command("XLEN", fixture.keys.queue(.standard, partition: 0)) == .integer(1))
            // Redis has lost the session: the gateway must write it again from its memory, before the job.
            try await fixture.redis.command("DEL", session)
            #expect(try await submit() == .sessionUnsaved)
        }
    }

    @Test func `a superseding submission interrupts in the same step`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let queued = QueueFixture.job("p0-queued")
            #expect(try await fixture.queue.submit(queued, options: SubmitOptions()) == .accepted)
            var options = SubmitOptions()
            options.supersede = [claim.job.id, queued.id]
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-new"), options: options) == .accepted)
            #expect(try await fixture.consumer.interrupt(of: claim.job.id)?.reason == "USER_NEW_INPUT")
            #expect(try await fixture.queue.record(queued.id)?.state == .interrupted)
            #expect(try await fixture.queue.record(JobID("p0-new")!)?.state == .queued)
        }
    }
}
