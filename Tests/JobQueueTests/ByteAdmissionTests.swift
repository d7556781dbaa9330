import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Limits in bytes on what Redis stores: per class, per owner, and for dead letters.
@Suite(.serialized) struct ByteAdmissionTests {
    private static func job(bytes: Int, owner: String? = "tenant-a", in priority: JobClass = .standard) -> Job {
        let text = JSON.string(String(repeating: "x", count: bytes))
        var job = Job(
            id: JobID("p0-\(ULID(milliseconds: 1))")!, priority: priority, request: JSON(dictionaryLiteral: ("user", text)).object!,
            owner: owner)
        job.priority = priority
        return job
    }

    private static func ledgers(_ fixture: QueueFixture) async throws -> [String] {
        try await fixture.redis.command("KEYS", "{sluice.0}:queued_bytes*").array?.compactMap(\.string).sorted() ?? []
    }

    @Test func `the bytes of a class are limited until jobs end`() async throws {
        var settings = QueueSettings()
        settings.queueMaximumBytes = 2_500
        try await QueueFixture.run(settings: settings) { fixture in
            func submit(_ priority: JobClass = .standard, owner: String? = nil) async throws -> Submission {
                try await fixture.queue.submit(Self.job(bytes: 1_000, owner: owner, in: priority), options: SubmitOptions())
            }
            #expect(try await submit() == .accepted)
            #expect(try await submit(owner: "tenant-a") == .accepted)
            #expect(try await submit() == .full)
            #expect(try await submit(.batch) == .accepted)
            // A claimed job remains in the stream; an ended one does not.
            let claim = try await fixture.claimNext()
            #expect(try await submit() == .full)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await submit() == .accepted)
            #expect(try await submit() == .full)
            // All remaining jobs end, and nothing is counted any more.
            for _ in 0..<3 {
                let claim = try await fixture.claimNext()
                #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            }
            let left = try await Self.ledgers(fixture)
            #expect(left.isEmpty)
        }
    }

    @Test func `an empty queue accepts a job of any size`() async throws {
        var settings = QueueSettings()
        settings.queueMaximumBytes = 1_024
        settings.ownerQueueMaximumBytes = 1_024
        try await QueueFixture.run(settings: settings) { fixture in
            var answers: [Submission] = []
            for bytes in [5_000, 10] { answers.append(try await fixture.queue.submit(Self.job(bytes: bytes), options: SubmitOptions())) }
            #expect(answers == [.accepted, .full])
        }
    }

    /// The bytes of a job are released however it leaves the queue or is lost from it.
    @Test func `the bytes of an owner are limited and counted exactly`() async throws {
        var settings = QueueSettings()
        settings.ownerQueueMaximumBytes = 1_500
        try await QueueFixture.run(settings: settings) { fixture in
            let (queue, redis) = (fixture.queue, fixture.redis)
            func submit(_ owner: String = "tenant-a", _ priority: JobClass = .standard) async throws -> (Submission, JobID) {
                let job = Self.job(bytes: 1_000, owner: owner, in: priority)
                return (try await queue.submit(job, options: SubmitOptions()), job.id)
            }
            func take() async throws -> QueueEntry {
                try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            }
            // Interrupted in the queue.
            let first = try await submit()
            #expect(first.0 == .accepted)
            #expect(try await submit("tenant-a", .batch).0 == .ownerFull)
            #expect(try await submit("tenant b: with spaces").0 == .accepted)
            _ = try await queue.interrupt(first.1, reason: "USER_STOP", owner: nil)
            #expect(try await submit().0 == .accepted)
            _ = try await fixture.claimNext()
            // Rejected.
            let claimed = try await take()
            #expect(try await submit().0 == .ownerFull)
            try await fixture.consumer.reject(
                claimed, id: JobID(Job(parsing: claimed.job ?? []).id.rawValue), message: "odd", toDeadLetters: false)
            #expect(try await submit().0 == .accepted)
            // Interrupt key found at the claim.
            let entry = try await take()
            let job = try Job(parsing: entry.job ?? [])
            try await redis.command("SET", fixture.keys.interrupt(job.id), "x")
            #expect(try await fixture.consumer.claim(job, entry: entry, leaseExpired: false) == .ended(nil))
            // Handed back.
            #expect(try await submit().0 == .accepted)
            let running = try await fixture.claimNext()
            let renewal = LeaseRenewal(id: running.job.id, entry: running.entry, attempt: 1)
            #expect(try await fixture.consumer.handBack(renewal))
            #expect(try await submit().0 == .ownerFull)
            // Entry, queue and database deleted by others.
            try await redis.command("XDEL", fixture.keys.queue(.standard, partition: 0), running.entry.id)
            #expect(try await submit().0 == .accepted)
            try await redis.command("DEL", fixture.keys.queue(.standard, partition: 0))
            #expect(try await submit().0 == .accepted)
            #expect(try await submit().0 == .ownerFull)
            for ledger in try await Self.ledgers(fixture) {
                let rest = try #require(try await redis.command("TTL", ledger).integer)
                #expect((1...86_400).contains(rest))
            }
            // A counter key of another type is created again.
            for ledger in try await Self.ledgers(fixture) { try await redis.command("SET", ledger, "x") }
            #expect(try await submit().0 == .accepted)
            #expect(try await submit().0 == .ownerFull)
            try await redis.command("FLUSHALL")
            try await fixture.consumer.createGroups()
            // Added by XADD: not counted, so its end subtracts nothing.
            try await redis.command(
                "XADD", fixture.keys.queue(.interactive, partition: 0), "*", "job", #"{"id":"by-hand","owner":"tenant-a","request":{}}"#)
            #expect(try await submit().0 == .accepted)
            let byHand = try await fixture.claimNext()
            #expect(try await fixture.finish(byHand, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await submit().0 == .ownerFull)
        }
    }

    /// The number of Redis commands per submission does not depend on the number of waiting jobs.
    @Test func `the cost of a submission is constant`() async throws {
        try await QueueFixture.run { fixture in
            func calls() async throws -> Int {
                let text = try await fixture.redis.command("INFO", "commandstats").string ?? ""
                return text.split(whereSeparator: \.isNewline).compactMap { line in
                    line.split(separator: "=").dropFirst().first.flatMap { Int($0.prefix { $0.isNumber }) }
                }.reduce(0, +)
            }
            func cost() async throws -> Int {
                let before = try await calls()
                #expect(try await fixture.queue.submit(Self.job(bytes: 10), options: SubmitOptions()) == .accepted)
                return try await calls() - before
            }
            for _ in 0..<2 { _ = try await cost() }
            let few = try await cost()
            for _ in 0..<200 { _ = try await fixture.queue.submit(Self.job(bytes: 10), options: SubmitOptions()) }
            let many = try await cost()
            // Three expiries are set with some of the submissions only.
            #expect(many <= few + 3)
        }
    }

    /// The verification of the ledger reads one large job, not a sample of 20.
    @Test func `a refused submission reads a limited number of bytes`() async throws {
        var settings = QueueSettings()
        settings.ownerQueueMaximumBytes = 2_000_000
        try await QueueFixture.run(settings: settings) { fixture in
            func submit() async throws -> Submission {
                try await fixture.queue.submit(Self.job(bytes: 100_000), options: SubmitOptions())
            }
            while case .accepted = try await submit() {}
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            #expect(try await submit() == .ownerFull)
            let text = try await fixture.redis.command("INFO", "commandstats").string ?? ""
            let reads = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("cmdstat_xrange:") }
            #expect(reads?.hasPrefix("cmdstat_xrange:calls=1,") == true)
        }
    }

    @Test func `dead letters are limited by bytes, oldest removed first`() async throws {
        var settings = QueueSettings()
        settings.deadMaximumBytes = 3_500
        try await QueueFixture.run(settings: settings) { fixture in
            let dead = fixture.keys.dead(partition: 0)
            func bury(_ name: String, bytes: Int = 1_000) async throws {
                let job = #"{"id":"\#(name)","request":{"user":"\#(String(repeating: "x", count: bytes))"}}"#
                try await fixture.redis.command("XADD", fixture.keys.queue(.standard, partition: 0), "*", "job", job)
                let entry = try #require(
                    try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
                try await fixture.consumer.reject(entry, id: JobID(name), message: "odd", toDeadLetters: true)
            }
            func names() async throws -> [String] {
                try await fixture.redis.command("XRANGE", dead, "-", "+").array?.compactMap {
                    try Job(parsing: ($0.array?.last?.fields["job"] ?? "").utf8).id.rawValue
                } ?? []
            }
            for name in ["a", "b", "c", "d", "e"] { try await bury(name) }
            #expect(try await names() == ["c", "d", "e"])
            // Retried letters free their bytes; the first and the last letter give the bytes between them.
            let first = try await fixture.redis.command("XRANGE", dead, "-", "+", "COUNT", "1").array?.first?.array?.first?.string
            try await fixture.redis.command("XDEL", dead, try #require(first))
            try await bury("f")
            #expect(try await names() == ["d", "e", "f"])
            // The newest letter is kept whatever its size, and counting restarts after a purge.
            try await bury("g", bytes: 9_000)
            #expect(try await names() == ["g"])
            try await fixture.redis.command("XTRIM", dead, "MAXLEN", "0")
            for name in ["h", "i"] { try await bury(name) }
            #expect(try await names() == ["h", "i"])
            // Letters of earlier versions have no byte count and are treated as the oldest.
            try await fixture.redis.command("DEL", dead)
            try await fixture.redis.command("XADD", dead, "1-1", "job", #"{"id":"old","request":{}}"#, "code", "worker_lost")
            for name in ["k", "l", "m", "n"] { try await bury(name) }
            #expect(try await names() == ["l", "m", "n"])
            // The key has another type.
            try await fixture.redis.command("DEL", dead)
            try await fixture.redis.command("SET", dead, "x")
            try await bury("o")
            #expect(try await names() == ["o"])
        }
    }

    /// One reply to a worker contains at most a few of the largest jobs.
    @Test func `one take is limited by bytes`() async throws {
        try await QueueFixture.run { fixture in
            for _ in 0..<5 {
                #expect(try await fixture.queue.submit(Self.job(bytes: 1_000_000), options: SubmitOptions()) == .accepted)
            }
            for _ in 0..<70 {
                _ = try await fixture.queue.submit(Self.job(bytes: 10, in: .interactive), options: SubmitOptions())
            }
            // Sorting them by tenant is limited, too: a call that has not sorted all of them delivers none.
            var counts: [Int] = []
            while counts.reduce(0, +) < 2 {
                let taken = try await fixture.consumer.take(partition: 0, classes: [.standard], count: 64)
                try #require(taken.isIncomplete || !taken.entries.isEmpty)
                counts.append(taken.entries.count)
            }
            #expect(counts.allSatisfy { $0 <= 1 } && counts.count <= 6, "\(counts)")
            // Small jobs are taken many at a time.
            let small = try await fixture.consumer.take(partition: 0, classes: [.interactive], count: 64).entries
            #expect(small.count == 64)
        }
    }
}
