import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Renewals of jobs without news, by the lease index alone.
struct QuietRenewalTests {
    private static let index = "{sluice.0}:leases:standard"

    /// Jobs that run on the fixture's worker, in two classes, with their known leases.
    private func running(_ count: Int, _ fixture: QueueFixture) async throws -> [LeaseRenewal] {
        var renewals: [LeaseRenewal] = []
        for number in 1...count {
            var job = QueueFixture.job("p0-\(ULID(milliseconds: UInt64(number)))")
            if number % 4 == 0 { job.priority = .interactive }
            let claim = try await fixture.running(job)
            var renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            renewal.readsLog = false
            renewals.append(renewal)
        }
        // In two calls, so that their leases expire at different times.
        for part in [renewals.indices.prefix(count / 2), renewals.indices.suffix(from: count / 2)] {
            for (index, report) in zip(part, try await fixture.consumer.validate(part.map { renewals[$0] })) {
                renewals[index].expiry = report.expiry
            }
        }
        #expect(renewals.allSatisfy { $0.isQuiet })
        return renewals
    }

    private func expiry(of renewal: LeaseRenewal, _ fixture: QueueFixture) async throws -> String? {
        let key = RedisArgument.string("{sluice.0}:leases:\(renewal.entry.priority.rawValue)")
        let score = try await fixture.consumer.redis.send("ZSCORE", key, .string(renewal.entry.id))
        return score.string
    }

    @Test(arguments: [false, true]) func `the number of commands does not depend on the number of jobs`(claimsEntries: Bool) async throws {
        try await QueueFixture.run { fixture in
            var renewals = try await running(40, fixture)
            // Four groups: two classes, and two times at which leases expire. Then one time, which no other lease has.
            for groups in [4, 2] {
                try await fixture.redis.command("CONFIG", "RESETSTAT")
                let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: claimsEntries)
                let calls = try await LeaseIndexTests.calls(fixture)
                #expect((calls["zmscore"] ?? 0) == (groups == 4 ? 4 : 0) && calls["hmget"] == nil, "\(calls)")
                #expect(calls.values.reduce(0, +) <= 3 * groups + 8 && (calls["xclaim"] != nil) == claimsEntries, "\(calls)")
                for (index, report) in reports.enumerated() {
                    let report = try #require(report)
                    #expect(report.answer == .kept && report.log == nil)
                    let expiry = try #require(report.expiry)
                    #expect(try await self.expiry(of: renewals[index], fixture) == expiry)
                    renewals[index].expiry = expiry
                }
            }
        }
    }

    @Test func `a job whose lease has changed is in doubt, the others are renewed`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await running(12, fixture)
            // Returned to the queue, ended, given to another worker.
            for (score, position) in [("0", 1), ("9999999999999", 5)] {
                try await fixture.redis.command("ZADD", Self.index, score, renewals[position].entry.id)
            }
            try await fixture.redis.command("ZREM", Self.index, renewals[9].entry.id)
            let before = try await expiry(of: renewals[5], fixture)
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: false)
            #expect(reports.indices.filter { reports[$0] == nil } == [1, 5, 9])
            #expect(try await expiry(of: renewals[5], fixture) == before)
            #expect(try await expiry(of: renewals[9], fixture) == nil)
            #expect(try await expiry(of: renewals[1], fixture) == "0")
            try await fixture.redis.command("SET", Self.index, "other data")
            var known = renewals
            for index in known.indices where known[index].entry.priority == .interactive {
                known[index].expiry = try await expiry(of: known[index], fixture)
            }
            let broken = try await fixture.consumer.renewQuiet(known, claimsEntries: true)
            #expect(broken.indices.filter { broken[$0] == nil } == renewals.indices.filter { renewals[$0].entry.priority == .standard })
            // The renewal of the jobs in doubt replaces the index.
            #expect(try await fixture.consumer.renew([renewals[0]]) == [.kept])
            #expect(try await expiry(of: renewals[0], fixture) != nil)
        }
    }

    @Test func `more jobs than one call renews are sent together, and each keeps its answer`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await running(2 * JobConsumer.quietPerCall + 40, fixture)
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
                #expect(try await expiry(of: renewal, fixture) == report?.expiry)
            }
        }
    }

    /// Renews the jobs until their leases have an expiry that no other lease has.
    private func renewed(_ renewals: [LeaseRenewal], _ fixture: QueueFixture) async throws -> [LeaseRenewal] {
        var renewals = renewals
        for (index, report) in try await fixture.consumer.renewQuiet(renewals, claimsEntries: false).enumerated() {
            renewals[index].expiry = try #require(report?.expiry)
        }
        return renewals
    }

    @Test func `leases that were renewed together are told from all others by their expiry`() async throws {
        try await QueueFixture.run { fixture in
            let first = try await renewed(running(2 * JobConsumer.quietPerCall + 40, fixture), fixture)
            // Three calls of one pipeline, perhaps in the same millisecond.
            #expect(Set(first.map(\.expiry)).count == 3)
            // Leases of other workers that expire at each whole millisecond and each fraction of the next seconds.
            let time = try #require(try await fixture.redis.command("TIME").array?.compactMap { $0.string.flatMap { Int($0) } })
            let start = time[0] * 1_000 + fixture.consumer.settings.leaseMilliseconds
            var others = RedisPipeline()
            for milliseconds in start..<(start + 3_000) {
                others.append(
                    ["ZADD", .string(Self.index)]
                        + (0..<8).flatMap { [.string("\(Double(milliseconds) + Double($0) / 8)"), .string("\(milliseconds)-\($0)")] })
            }
            _ = try await fixture.consumer.redis.send(others)
            for renewal in try await renewed(Array(first.prefix(8)), fixture) where renewal.entry.priority == .standard {
                let expiry = RedisArgument.string(try #require(renewal.expiry))
                #expect(try await fixture.consumer.redis.send("ZCOUNT", .string(Self.index), expiry, expiry).integer == 6)
            }
        }
    }

    @Test(arguments: ["0", "9999999999999", nil])
    func `one changed lease among those renewed together is in doubt`(score: String?) async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await renewed(running(12, fixture), fixture)
            let entry = RedisArgument.string(renewals[5].entry.id)
            if let score {
                _ = try await fixture.consumer.redis.send("ZADD", .string(Self.index), .string(score), entry)
            } else {
                _ = try await fixture.consumer.redis.send("ZREM", .string(Self.index), entry)
            }
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: false)
            #expect(reports.indices.filter { reports[$0] == nil } == [5])
            #expect(try await expiry(of: renewals[5], fixture) == score)
        }
    }

    @Test func `a job of another worker is in doubt`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await running(1, fixture)
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
            let renewals = try await running(4, fixture)
            let isSeven = try await fixture.redis.majorVersion() >= 7
            try await fixture.redis.command("XDEL", fixture.keys.queue(.standard, partition: 0), renewals[1].entry.id)
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: true)
            // XCLAIM of Redis 6.2 does not tell that an entry was deleted.
            #expect(reports.indices.filter { reports[$0] == nil } == (isSeven ? [1] : []))
            let key = fixture.keys.interrupt(renewals[2].id)
            try await fixture.redis.command("SET", key, "{}")
            var known = renewals
            for index in known.indices { known[index].expiry = try await expiry(of: known[index], fixture) }
            #expect(try await fixture.consumer.renewQuiet(known, claimsEntries: false) == [nil, nil, nil, nil])
            try await fixture.redis.command("DEL", key)
            try await fixture.redis.command("DEL", fixture.keys.record(renewals[3].id))
            for index in known.indices { known[index].expiry = try await expiry(of: known[index], fixture) }
            #expect(try await fixture.consumer.renewQuiet(known, claimsEntries: true) == [nil, nil, nil, nil])
        }
    }

    @Test func `the script is loaded again after SCRIPT FLUSH`() async throws {
        try await QueueFixture.run { fixture in
            let renewals = try await running(2, fixture)
            try await fixture.redis.command("SCRIPT", "FLUSH")
            let reports = try await fixture.consumer.renewQuiet(renewals, claimsEntries: false)
            #expect(reports.allSatisfy { $0?.answer == .kept })
        }
    }
}
