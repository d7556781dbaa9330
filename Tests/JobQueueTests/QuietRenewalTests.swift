import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

extension QueueFixture {
    /// Jobs that run on the fixture's worker, in two classes, with their known leases.
    func quiet(_ count: Int) async throws -> [LeaseRenewal] {
        var renewals: [LeaseRenewal] = []
        for number in 1...count {
            var job = QueueFixture.job("p0-\(ULID(milliseconds: UInt64(number)))")
            if number % 4 == 0 { job.priority = .interactive }
            let claim = try await running(job)
            var renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            renewal.readsLog = false
            renewals.append(renewal)
        }
        // In two calls, so that their leases expire at different times.
        for part in [renewals.indices.prefix(count / 2), renewals.indices.suffix(from: count / 2)] {
            for (index, report) in zip(part, try await consumer.validate(part.map { renewals[$0] })) {
                renewals[index].leaseScore = report.leaseScore
            }
        }
        #expect(renewals.allSatisfy { $0.isQuiet })
        return renewals
    }

    /// Quiet jobs after a renewal by the index alone.
    func renewed(_ renewals: [LeaseRenewal]) async throws -> [LeaseRenewal] {
        var renewals = renewals
        for (index, report) in try await consumer.renewQuiet(renewals, claimsEntries: false).enumerated() {
            renewals[index].leaseScore = try #require(report?.leaseScore)
        }
        return renewals
    }

    /// The score of a job's entry in the lease index.
    func score(of renewal: LeaseRenewal) async throws -> String? {
        let index = RedisArgument.string("{sluice.0}:leases:\(renewal.entry.priority.rawValue)")
        return try await consumer.redis.send("ZSCORE", index, .string(renewal.entry.id)).string
    }
}

/// Renewals of jobs without news, by the lease index alone.
struct QuietRenewalTests {
    private static let index = "{sluice.0}:leases:standard"

    @Test(arguments: [false, true]) func `the number of commands does not depend on the number of jobs`(claimsEntries: Bool) async throws {
        try await QueueFixture.run { fixture in
            var renewals = try await fixture.quiet(40)
            // Four groups: two classes, and two times at which leases expire. Then one lease for each class.
            for groups in [4, 2] {
                try await fixture.redis.command("CONFIG", "RESETSTAT")
                let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: claimsEntries)
                let calls = try await LeaseIndexTests.calls(fixture)
                let compared = groups == 4 ? 4 : claimsEntries ? 2 : 0
                #expect((calls["zmscore"] ?? 0) == compared && calls["hmget"] == nil, "\(calls)")
                #expect(calls.values.reduce(0, +) <= 3 * groups + 8 && (calls["xclaim"] != nil) == claimsEntries, "\(calls)")
                for (index, report) in reports.enumerated() {
                    let report = try #require(report)
                    #expect(report.answer == .kept && report.log == nil)
                    let score = try #require(report.leaseScore)
                    #expect(try await fixture.score(of: renewals[index]) == score)
                    renewals[index].leaseScore = score
                }
            }
        }
    }

    @Test func `a job whose lease has changed is in doubt, the others are renewed`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(12)
            // Returned to the queue, ended, given to another worker.
            for (score, position) in [("0", 1), ("9999999999999", 5)] {
                try await fixture.redis.command("ZADD", Self.index, score, renewals[position].entry.id)
            }
            try await fixture.redis.command("ZREM", Self.index, renewals[9].entry.id)
            let before = try await fixture.score(of: renewals[5])
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: false)
            #expect(reports.indices.filter { reports[$0] == nil } == [1, 5, 9])
            #expect(try await fixture.score(of: renewals[5]) == before)
            #expect(try await fixture.score(of: renewals[9]) == nil)
            #expect(try await fixture.score(of: renewals[1]) == "0")
            try await fixture.redis.command("SET", Self.index, "other data")
            var known = renewals
            for index in known.indices where known[index].entry.priority == .interactive {
                known[index].leaseScore = try await fixture.score(of: known[index])
            }
            let broken = try await fixture.consumer.renewQuiet(known, claimsEntries: true)
            #expect(broken.indices.filter { broken[$0] == nil } == renewals.indices.filter { renewals[$0].entry.priority == .standard })
            // The renewal of the jobs in doubt replaces the index.
            #expect(try await fixture.consumer.renew([renewals[0]]) == [.kept])
            #expect(try await fixture.score(of: renewals[0]) != nil)
        }
    }

    @Test func `more jobs than one call renews are sent together, and each keeps its answer`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(2 * JobConsumer.quietPerCall + 40)
            // Loads the script, and changes the lease of this job.
            _ = try await fixture.consumer.renewQuiet([renewals[0]], claimsEntries: false)
            for position in [130, 290] {
                let index = "{sluice.0}:leases:\(renewals[position].entry.priority.rawValue)"
                try await fixture.redis.command("ZREM", index, renewals[position].entry.id)
            }
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: true)
            #expect(try await LeaseIndexTests.calls(fixture)["evalsha"] == 3)
            #expect(reports.indices.filter { reports[$0] == nil } == [0, 130, 290])
            for (renewal, report) in zip(renewals, reports).dropFirst() {
                #expect(try await fixture.score(of: renewal) == report?.leaseScore)
            }
        }
    }

    @Test(arguments: ["0", "9999999999999", nil])
    func `all jobs that share a lease are in doubt when one of them has changed`(score: String?) async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.renewed(fixture.quiet(12))
            let entry = RedisArgument.string(renewals[5].entry.id)
            if let score {
                _ = try await fixture.consumer.redis.send("ZADD", .string(Self.index), .string(score), entry)
            } else {
                _ = try await fixture.consumer.redis.send("ZREM", .string(Self.index), entry)
            }
            for claimsEntries in [false, true] {
                let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: claimsEntries)
                for (renewal, report) in zip(renewals, reports) {
                    #expect((report == nil) == (renewal.entry.priority == .standard))
                }
            }
            #expect(try await fixture.score(of: renewals[5]) == score)
            // The renewal of those in doubt gives each a lease of its own.
            let standard = renewals.filter { $0.entry.priority == .standard && $0.id != renewals[5].id }
            for (renewal, report) in zip(standard, try await fixture.consumer.validate(standard)) {
                #expect(report.answer == .kept && report.leaseScore != renewal.leaseScore)
                #expect(try await fixture.score(of: renewal) == report.leaseScore)
            }
        }
    }

    @Test func `a job of another worker is in doubt`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(1)
            let other = fixture.consumer("w2", token: "t2")
            let (queue, entry) = (fixture.keys.queue(.standard, partition: 0), renewals[0].entry.id)
            try await fixture.redis.command("ZADD", Self.index, "1", entry)
            try await fixture.redis.command("XCLAIM", queue, Keys.group, "w1", "0", entry, "IDLE", "3600000", "JUSTID")
            let taken = try #require(try await other.take(partition: 0, classes: JobClass.allCases, count: 1).expired.first)
            #expect(try await fixture.consumer.renewQuiet(renewals, claimsEntries: true) == [nil])
            guard case .claimed = try await other.claim(Job(parsing: taken.job ?? []), entry: taken, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(try await fixture.consumer.renewQuiet(renewals, claimsEntries: true) == [nil])
            #expect(try await fixture.consumer.renew(renewals) == [.lost])
        }
    }

    @Test func `interrupts, deleted records and deleted entries are noticed`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(4)
            let isSeven = try await fixture.redis.majorVersion() >= 7
            try await fixture.redis.command("XDEL", fixture.keys.queue(.standard, partition: 0), renewals[1].entry.id)
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: true)
            // XCLAIM of Redis 6.2 does not tell that an entry was deleted.
            #expect(reports.indices.filter { reports[$0] == nil } == (isSeven ? [1] : []))
            let key = fixture.keys.interrupt(renewals[2].id)
            try await fixture.redis.command("SET", key, "{}")
            var known = renewals
            for index in known.indices { known[index].leaseScore = try await fixture.score(of: known[index]) }
            #expect(try await fixture.consumer.renewQuiet(known, claimsEntries: false) == [nil, nil, nil, nil])
            try await fixture.redis.command("DEL", key)
            try await fixture.redis.command("DEL", fixture.keys.record(renewals[3].id))
            for index in known.indices { known[index].leaseScore = try await fixture.score(of: known[index]) }
            #expect(try await fixture.consumer.renewQuiet(known, claimsEntries: true) == [nil, nil, nil, nil])
        }
    }

    @Test func `the script is loaded again after SCRIPT FLUSH`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await fixture.quiet(2)
            try await fixture.redis.command("SCRIPT", "FLUSH")
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: false)
            #expect(reports.allSatisfy { $0?.answer == .kept })
        }
    }
}
