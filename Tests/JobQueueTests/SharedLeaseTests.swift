import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Leases that jobs share after a renewal by the index alone.
struct SharedLeaseTests {
    private static let index = RedisArgument.string("{sluice.0}:leases:standard")
    /// The smallest number of a shared lease.
    private static let first = 10_000_000_000_000

    /// The time at which a job's shared lease expires.
    private func expiry(of renewal: LeaseRenewal, _ fixture: QueueFixture) async throws -> Int? {
        let index = RedisArgument.string("{sluice.0}:leases:\(renewal.entry.priority.rawValue)")
        let number = try #require(renewal.leaseScore)
        return try await fixture.consumer.redis.send("ZSCORE", index, .string("=\(number)")).string.flatMap { Int($0) }
    }

    /// Lets the shared leases of jobs expire, and their entries be idle for longer than a lease, as after the loss of their worker.
    private func expire(_ renewals: [LeaseRenewal], _ fixture: QueueFixture) async throws {
        var pipeline = RedisPipeline()
        for renewal in renewals {
            let index = RedisArgument.string("{sluice.0}:leases:\(renewal.entry.priority.rawValue)")
            let queue = RedisArgument.string(fixture.keys.queue(renewal.entry.priority, partition: 0))
            pipeline.append("ZADD", index, "1", .string("=\(renewal.leaseScore ?? "")"))
            pipeline.append(
                "XCLAIM", queue, .string(Keys.group), .string(fixture.consumer.worker), "0", .string(renewal.entry.id), "IDLE", "3600000",
                "JUSTID")
        }
        for reply in try await fixture.consumer.redis.send(pipeline) { _ = try reply.orThrow() }
    }

    private func ids(_ renewals: [LeaseRenewal], _ priority: JobClass) -> [String] {
        renewals.filter { $0.entry.priority == priority }.map(\.entry.id)
    }

    private func time(_ fixture: QueueFixture) async throws -> Int {
        let parts = try #require(try await fixture.redis.command("TIME").array?.compactMap { $0.string.flatMap { Int($0) } })
        return parts[0] * 1_000 + parts[1] / 1_000
    }

    @Test func `the jobs of one queue in one call share a lease that no others have`() async throws {
        try await QueueFixture.run { fixture in
            let jobs = try await fixture.renewed(fixture.quiet(2 * JobConsumer.quietPerCall + 40))
            let standard = jobs.filter { $0.entry.priority == .standard }
            // Three calls of one pipeline, perhaps in the same millisecond.
            #expect(Set(standard.map(\.leaseScore)).count == 3)
            for renewal in jobs { #expect(try await fixture.score(of: renewal) == renewal.leaseScore) }
            // The numbers of the next seconds are in use.
            let start = Self.first + (try await time(fixture))
            var others = RedisPipeline()
            for number in stride(from: start, to: start + 3_000, by: 2) {
                others.append("ZADD", Self.index, .integer(number), .string("\(number)-0"), "9999999999999", .string("=\(number + 1)"))
            }
            _ = try await fixture.consumer.redis.send(others)
            // Jobs with leases of their own get another one.
            var some = Array(standard.suffix(10))
            for (index, report) in try await fixture.consumer.validate(some).enumerated() { some[index].leaseScore = report.leaseScore }
            let numbers = try await fixture.renewed(some).map(\.leaseScore)
            let number = try #require(numbers[0])
            #expect(Set(numbers) == [number])
            #expect(Int(number) ?? 0 >= start + 3_000)
            #expect(try await fixture.consumer.redis.send("ZCOUNT", Self.index, .string(number), .string(number)).integer == 10)
        }
    }

    @Test func `a renewal moves the expiry and no entry`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(12))
            let before = try #require(try await expiry(of: renewals[0], fixture))
            let lease = fixture.consumer.settings.leaseMilliseconds
            try await until("the next millisecond") { try await time(fixture) > before - lease }
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            let again = try await fixture.renewed(renewals)
            let calls = try await LeaseIndexTests.calls(fixture)
            #expect(calls["zadd"] == 2 && calls["zcount"] == 2 && calls["zmscore"] == nil, "\(calls)")
            #expect(again.map(\.leaseScore) == renewals.map(\.leaseScore))
            #expect(try #require(try await expiry(of: renewals[0], fixture)) > before)
        }
    }

    @Test func `jobs that ended or have news leave the lease to the others`() async throws {
        try await QueueFixture.run { fixture in
            var renewals = try await fixture.renewed(fixture.quiet(12)).filter { $0.entry.priority == .standard }
            let score = renewals[0].leaseScore
            renewals[0].progress = JobProgress(upstream: "u")
            let own = try #require(try await fixture.consumer.validate([renewals[0]]).first?.leaseScore)
            #expect(own != score)
            _ = try await fixture.consumer.redis.send("ZREM", Self.index, .string(renewals[1].entry.id))
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            let others = try await fixture.renewed(Array(renewals.dropFirst(2)))
            #expect(others.allSatisfy { $0.leaseScore == score })
            #expect(try await LeaseIndexTests.calls(fixture)["zmscore"] == nil)
            #expect(try await fixture.score(of: renewals[0]) == own)
        }
    }

    @Test func `an exchanged entry is noticed when the entries are claimed`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(3))
            let score = RedisArgument.string(renewals[0].leaseScore ?? "")
            _ = try await fixture.consumer.redis.send(
                "ZADD", Self.index, "9999999999999", .string(renewals[0].entry.id), score, "1-1")
            #expect(try await fixture.consumer.renewQuiet(renewals, claimsEntries: true) == [nil, nil, nil])
        }
    }

    @Test func `many small shared leases become one`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(16).filter { $0.entry.priority == .standard }
            var jobs: [LeaseRenewal] = []
            for start in stride(from: 0, to: 12, by: 2) { jobs += try await fixture.renewed(Array(renewals[start..<(start + 2)])) }
            #expect(Set(jobs.map(\.leaseScore)).count == 6)
            // Two are kept.
            let some = Array(jobs.prefix(4))
            #expect(try await fixture.renewed(some).map(\.leaseScore) == some.map(\.leaseScore))
            let merged = try await fixture.renewed(jobs)
            #expect(Set(merged.map(\.leaseScore)).count == 1)
            // The former leases are gone.
            #expect(try await fixture.consumer.redis.send("ZCARD", Self.index).integer == 12 + 1)
        }
    }

    @Test func `jobs that share a lease stay in one call`() throws {
        var renewals: [LeaseRenewal] = []
        for (count, score) in [(100, 1), (100, 2), (20, 3)].map({ ($0, Self.first + $1) }) + [(300, 1_700_000_000_000)] {
            for _ in 0..<count {
                let name = "\(renewals.count)"
                let entry = QueueEntry(partition: 0, priority: .standard, id: "1-\(name)", job: nil)
                var renewal = LeaseRenewal(id: try #require(JobID("p0-\(name)")), entry: entry, attempt: 1)
                renewal.leaseScore = "\(score)"
                renewals.append(renewal)
            }
        }
        renewals.shuffle()
        let parts = JobConsumer.quietParts(renewals)
        #expect(parts.map(\.count).reduce(0, +) == 520)
        #expect(parts.allSatisfy { $0.count <= 2 * JobConsumer.quietPerCall })
        for number in 1...3 {
            #expect(parts.count { $0.contains { $0.leaseScore == "\(Self.first + number)" } } == 1)
        }
        #expect(JobConsumer.quietParts([]).isEmpty)
    }

    @Test func `the entries of an expired shared lease are taken over in their order`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(40))
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.take(partition: 0, classes: JobClass.allCases, count: 9).isEmpty)
            try await expire(renewals, fixture)
            var taken: [String] = []
            for count in [1, 7, 100] {
                taken += try await other.take(partition: 0, classes: JobClass.allCases, count: count).expired.map(\.id)
            }
            #expect(taken == ids(renewals, .interactive) + ids(renewals, .standard))
            // Nothing is left of the shared leases, and the former worker notices.
            #expect(try await fixture.consumer.redis.send("ZCARD", Self.index).integer == 30)
            #expect(try await fixture.consumer.renewQuiet(renewals, claimsEntries: true).allSatisfy { $0 == nil })
        }
    }

    @Test func `a take separates a bounded number of entries, and leases without entries hold up nothing`() async throws {
        try await QueueFixture.run { fixture in
            try await LeaseIndexTests.running(2_000, expiry: "9999999999999", fixture)
            let queue = RedisArgument.string(fixture.keys.queue(.standard, partition: 0))
            var pipeline = RedisPipeline()
            for number in 1...2_000 {
                let shared = Self.first + (number - 1) / 100
                pipeline.append("ZADD", Self.index, .integer(shared), .string("\(number)-0"), "5", .string("=\(shared)"))
                pipeline.append("XCLAIM", queue, .string(Keys.group), "other", "0", .string("\(number)-0"), "IDLE", "3600000", "JUSTID")
            }
            // Leases whose jobs have ended, and members of other programs.
            for number in 0..<50 {
                pipeline.append("ZADD", Self.index, "4", .string("=\(Self.first + 1_000 + number)"), "3", .string("=x\(number)"))
            }
            for reply in try await fixture.consumer.redis.send(pipeline) { _ = try reply.orThrow() }
            let other = fixture.consumer("w2", token: "t2")
            var count = try await other.take(partition: 0, classes: JobClass.allCases, count: 10).expired.count
            #expect(count == 10)
            let shared = try await fixture.consumer.redis.send("ZCOUNT", Self.index, .integer(Self.first), "+inf").integer
            #expect(shared ?? 0 >= 1_400)
            while case let taken = try await other.take(partition: 0, classes: JobClass.allCases, count: 100), !taken.isEmpty {
                count += taken.expired.count
            }
            #expect(count == 2_000)
            #expect(try await fixture.consumer.redis.send("ZCARD", Self.index).integer == 2_000)
        }
    }

    @Test func `an interrupt ends a job whose shared lease has expired, and no other`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(12))
            _ = try await fixture.queue.interrupt(renewals[4].id, reason: "USER_STOP", owner: nil)
            #expect(try await fixture.queue.record(renewals[4].id)?.state == .running)
            try await expire(renewals, fixture)
            _ = try await fixture.queue.interrupt(renewals[5].id, reason: "USER_STOP", owner: nil)
            #expect(try await fixture.queue.record(renewals[5].id)?.state == .interrupted)
            // The other one ends although no slot is free.
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.endInterrupted() == 1)
            #expect(try await fixture.queue.record(renewals[4].id)?.state == .interrupted)
            #expect(try await fixture.queue.record(renewals[6].id)?.state == .running)
        }
    }

    @Test func `the walk finds entries whose shared lease has no expiry`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(3))
            try await expire(renewals, fixture)
            _ = try await fixture.consumer.redis.send("ZREM", Self.index, .string("=\(renewals[0].leaseScore ?? "")"))
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.take(partition: 0, classes: JobClass.allCases, count: 9).isEmpty)
            #expect(try await other.walkPending() == JobConsumer.Walk(added: 3, sorted: 0))
            #expect(try await other.take(partition: 0, classes: JobClass.allCases, count: 9).expired.count == 3)
        }
    }
}
