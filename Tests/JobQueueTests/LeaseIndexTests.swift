import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// The index of leases, by which entries are taken over.
struct LeaseIndexTests {
    /// Calls of each command since the last reset of the statistics.
    static func calls(_ fixture: QueueFixture) async throws -> [String: Int] {
        let text = try await fixture.redis.command("INFO", "commandstats").string ?? ""
        var calls: [String: Int] = [:]
        for line in text.split(separator: "\r\n") where line.hasPrefix("cmdstat_") {
            let parts = line.dropFirst("cmdstat_".count).split(separator: ":", maxSplits: 1)
            let number = parts.last?.dropFirst("calls=".count).prefix { $0.isNumber }
            if parts.count == 2 { calls[String(parts[0])] = number.flatMap { Int($0) } }
        }
        calls["info"] = nil
        calls["config|resetstat"] = nil
        // As Redis 6.2 counts it.
        calls["config"] = nil
        // Connections check each other besides.
        calls["ping"] = nil
        calls["echo"] = nil
        return calls
    }

    /// Jobs delivered to a worker, with leases in the index.
    static func running(_ count: Int, expiry: String, _ fixture: QueueFixture) async throws {
        let queue = RedisArgument.string(fixture.keys.queue(.standard, partition: 0))
        for start in stride(from: 1, through: count, by: 1_000) {
            var pipeline = RedisPipeline()
            for number in start..<min(start + 1_000, count + 1) {
                pipeline.append("XADD", queue, .string("\(number)-0"), "job", .string(#"{"id":"p0-\#(number)","request":{}}"#))
                pipeline.append("ZADD", "{sluice.0}:leases:standard", .string(expiry), .string("\(number)-0"))
            }
            pipeline.append("XREADGROUP", "GROUP", .string(Keys.group), "other", "COUNT", 1_000, "STREAMS", queue, ">")
            for reply in try await fixture.consumer.redis.send(pipeline) { _ = try reply.orThrow() }
        }
    }

    @Test func `a renewal of jobs without news costs one command a job`() async throws {
        try await QueueFixture.run { fixture in
            var renewals: [LeaseRenewal] = []
            for number in 1...20 {
                let claim = try await fixture.running(QueueFixture.job("p0-\(ULID(milliseconds: UInt64(number)))"))
                renewals.append(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1))
                renewals[number - 1].readsLog = false
            }
            func isKept(_ report: LeaseReport) -> Bool { report.answer == .kept && report.log == nil }
            #expect(try await fixture.consumer.validate(renewals).allSatisfy(isKept))
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            #expect(try await fixture.consumer.validate(renewals).allSatisfy(isKept))
            let calls = try await Self.calls(fixture)
            #expect(calls["hmget"] == 20 && calls.values.reduce(0, +) <= 20 + 6, "\(calls)")
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            #expect(try await fixture.consumer.validate(renewals, claimsEntries: false).allSatisfy(isKept))
            #expect(try await Self.calls(fixture)["xclaim"] == nil)
            // One entry is gone, one job is interrupted, and one has news.
            let queue = fixture.keys.queue(.standard, partition: 0)
            try await fixture.redis.command("XDEL", queue, renewals[3].entry.id)
            _ = try await fixture.queue.interrupt(renewals[7].id, reason: "USER_STOP", owner: nil)
            renewals[11].progress = JobProgress(upstream: "u", dialledMilliseconds: 5)
            renewals[12].readsLog = true
            let reports = try await fixture.consumer.validate(renewals)
            // XCLAIM of Redis 6.2 does not tell that an entry was deleted.
            let unlisted = try await fixture.redis.majorVersion() >= 7 ? 3 : nil
            for (index, report) in reports.enumerated() {
                let record = try await fixture.redis.command("HGETALL", fixture.keys.record(renewals[index].id)).fields
                #expect((record["unlisted_ms"] != nil) == (index == unlisted), "\(index) \(record)")
                #expect((record["upstream"] == "u") == (index == 11), "\(index) \(record)")
                #expect((report.answer == .kept) == (index != 7), "\(index) \(report)")
                #expect(report.log == (index == 12 ? LogState(newest: EventID(attempt: 1, sequence: 0)) : nil))
            }
        }
    }

    /// The script takes them in another order than the caller.
    @Test func `reports of jobs of several classes belong to their jobs`() async throws {
        try await QueueFixture.run { fixture in
            var renewals: [LeaseRenewal] = []
            for (number, priority) in [JobClass.batch, .interactive, .standard, .batch, .interactive].enumerated() {
                var job = QueueFixture.job("p0-\(ULID(milliseconds: UInt64(number + 1)))")
                job.priority = priority
                let claim = try await fixture.running(job)
                renewals.append(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1))
                renewals[number].readsLog = number % 2 == 0
            }
            try await fixture.redis.command("HSET", fixture.keys.record(renewals[3].id), "token", "other")
            _ = try await fixture.queue.interrupt(renewals[1].id, reason: "USER_STOP", owner: nil)
            let first = EventID(attempt: 1, sequence: 0)
            let reports = try await fixture.consumer.validate(renewals)
            #expect(reports.map { $0.log != nil } == [true, false, true, false, true])
            #expect(reports.map(\.log?.newest) == [first, nil, first, nil, first])
            for (index, report) in reports.enumerated() {
                switch report.answer {
                case .kept: #expect([0, 2, 4].contains(index))
                case .interrupted(let interrupt): #expect(index == 1 && interrupt.id == renewals[1].id)
                case .lost: #expect(index == 3)
                }
            }
        }
    }

    @Test func `looking for expired leases costs the same with many running jobs as with none`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(600)
        try await QueueFixture.run(settings: settings) { fixture in
            _ = try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 2)
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            _ = try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 2)
            let empty = try await Self.calls(fixture)
            try await Self.running(25_600, expiry: "9999999999999", fixture)
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            #expect(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 2).isEmpty)
            let full = try await Self.calls(fixture)
            #expect(full.values.reduce(0, +) <= empty.values.reduce(0, +), "\(full) \(empty)")
            #expect(full["xpending"] == nil && full["xautoclaim"] == nil && full["xclaim"] == nil)
            // Two of them expire.
            for entry in ["7-0", "25600-0"] { try await fixture.redis.command("ZADD", "{sluice.0}:leases:standard", "1", entry) }
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            // The pending list says that they are not idle yet: a worker of an earlier version has renewed them.
            #expect(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 9).isEmpty)
            #expect(try await Self.calls(fixture).values.reduce(0, +) < 50)
            #expect(try await fixture.redis.command("ZCOUNT", "{sluice.0}:leases:standard", "0", "2") == .integer(0))
        }
    }

    @Test func `expired and returned jobs are served before waiting ones of all classes`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(50)
        try await QueueFixture.run(settings: settings) { fixture in
            let claim = try await fixture.running(QueueFixture.job("p0-lost"))
            for number in 0..<20 {
                var job = QueueFixture.job("p0-\(number)")
                job.priority = number % 2 == 0 ? .interactive : .batch
                _ = try await fixture.queue.submit(job, options: SubmitOptions())
            }
            let other = fixture.consumer("w2", token: "t2")
            _ = try await until("an expired lease") {
                try await fixture.redis.command(
                    "XPENDING", fixture.keys.queue(.standard, partition: 0), Keys.group, "IDLE", "50", "-", "+", "9"
                )
                .array?.first
            }
            let taken = try await other.take(partition: 0, classes: JobClass.allCases, count: 1)
            #expect(taken.expired.map(\.id) == [claim.entry.id] && taken.entries.isEmpty)
        }
    }

    @Test func `an interrupt ends a handed-back job, and one whose worker is lost`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            let handed = try await fixture.running(QueueFixture.job("p0-handed"))
            #expect(try await fixture.consumer.handBack(LeaseRenewal(id: handed.job.id, entry: handed.entry, attempt: 1)))
            _ = try await fixture.queue.interrupt(handed.job.id, reason: "USER_STOP", owner: nil)
            let lost = try await fixture.running(QueueFixture.job("p0-lost"))
            _ = try await until("the end of the lost job") {
                _ = try await fixture.queue.interrupt(lost.job.id, reason: "USER_STOP", owner: nil)
                return try await fixture.queue.record(lost.job.id)?.state == .interrupted ? true : nil
            }
            for id in [handed.job.id, lost.job.id] {
                #expect(try await fixture.queue.record(id)?.state == .interrupted)
                #expect(try await fixture.queue.log(id, after: nil).last?.id.description == "2-0")
            }
            // Nothing is left in the queue and its index.
            #expect(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 9).isEmpty)
            #expect(try await fixture.redis.command("XLEN", fixture.keys.queue(.standard, partition: 0)) == .integer(0))
            #expect(try await fixture.redis.command("EXISTS", "{sluice.0}:leases:standard") == .integer(0))
        }
    }

    @Test func `one call that ends interrupted jobs reads a bounded number of bytes, and further ones reach the rest`() async throws {
        try await QueueFixture.run { fixture in
            let other = fixture.consumer("w2", token: "t2")
            let size = JobConsumer.interruptedBytesAtOnce / 2
            var claims: [Claim] = []
            for number in 0..<5 {
                var job = QueueFixture.job("p0-\(number)")
                job.request["messages"] = .string(String(repeating: "x", count: size))
                claims.append(try await fixture.running(job))
            }
            for claim in claims {
                let id = claim.job.id
                try await fixture.redis.command("SET", fixture.keys.interrupt(id), #"{"id":"\(id)","reason":"R"}"#)
                try await fixture.redis.command("ZADD", "{sluice.0}:leases:standard", "1", claim.entry.id)
            }
            var counts: [Int] = []
            for _ in 0..<4 {
                try await fixture.redis.command("DEL", "{sluice.0}:ending")
                counts.append(try await other.endInterrupted())
            }
            #expect(counts == [2, 2, 1, 0])
        }
    }

    /// The key is written by hand, while the worker still holds the lease; no slot becomes free.
    @Test func `an interrupted job of a lost worker ends without a free slot`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(3)
        try await QueueFixture.run(settings: settings) { fixture in
            for name in ["p0-lost", "p0-other"] {
                _ = try await fixture.queue.submit(QueueFixture.job(name), options: SubmitOptions())
            }
            let claim = try await fixture.claimNext()
            _ = try await fixture.claimNext()
            try await fixture.redis.command("SET", "{sluice.0}:interrupt:p0-lost", #"{"id":"p0-lost","reason":"USER_STOP"}"#, "EX", "600")
            let other = fixture.consumer("w2", token: "t2")
            let ended = try await until("the end") {
                let count = try await other.endInterrupted()
                return count > 0 ? count : nil
            }
            #expect(ended == 1)
            #expect(try await fixture.queue.record(claim.job.id)?.state == .interrupted)
            #expect(try await fixture.queue.record(JobID("p0-other")!)?.state == .running)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(0))
        }
    }

    @Test func `the walk finds entries that the index does not hold, and one worker walks per lease`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job("p0-old"))
            // As a worker of an earlier version claims jobs, that has not renewed for more than a lease.
            try await fixture.redis.command("ZREM", "{sluice.0}:leases:standard", claim.entry.id)
            let (queue, owner) = (fixture.keys.queue(.standard, partition: 0), fixture.consumer.worker)
            try await fixture.redis.command("XCLAIM", queue, Keys.group, owner, "0", claim.entry.id, "IDLE", "999999", "JUSTID")
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.walkPending() == JobConsumer.Walk(added: 1, sorted: 0))
            #expect(try await fixture.consumer.walkPending() == nil, "one walk per lease")
            let taken = try await other.take(partition: 0, classes: JobClass.allCases, count: 1)
            #expect(taken.expired.map(\.id) == [claim.entry.id])
            guard case .claimed(let second) = try await other.claim(claim.job, entry: claim.entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(second.attempt == 2)
            #expect(try await fixture.finish(second, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await fixture.redis.command("EXISTS", "{sluice.0}:leases:standard") == .integer(0))
        }
    }

    @Test func `a burst of hand-backs is announced once`() async throws {
        try await QueueFixture.run { fixture in
            var claims: [Claim] = []
            for number in 0..<20 { claims.append(try await fixture.running(QueueFixture.job("p0-\(number)"))) }
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            for claim in claims {
                #expect(try await fixture.consumer.handBack(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)))
            }
            #expect(try await Self.calls(fixture)["publish"] == 1)
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.take(partition: 0, classes: JobClass.allCases, count: 20).expired.count == 20)
        }
    }
}
