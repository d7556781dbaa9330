import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// A key of the wrong type affects only its own queue or job.
@Suite(.serialized) struct SpoiltKeyTests {
    @Test(arguments: JobClass.allCases) func `a queue key of another type affects only this queue`(_ spoilt: JobClass) async throws {
        try await QueueFixture.run { fixture in
            let key = fixture.keys.queue(spoilt, partition: 0)
            try await fixture.redis.command("DEL", key)
            try await fixture.redis.command("SET", key, "x")
            try await fixture.consumer.createGroups()
            for priority in JobClass.allCases {
                var job = QueueFixture.job("p0-\(ULID(milliseconds: 1))")
                job.priority = priority
                guard priority != spoilt else {
                    let refused = job
                    await #expect(throws: RedisError.self) { _ = try await fixture.queue.submit(refused, options: SubmitOptions()) }
                    continue
                }
                #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            }
            let taken = try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 10)
            #expect(taken.entries.count == 2)
            #expect(taken.faults.map(\.priority) == [spoilt])
            #expect(taken.faults.first?.error.message.hasPrefix("WRONGTYPE") == true)
            let depth = try await fixture.consumer.depth()
            #expect(depth.entries == 2 && depth.classes[spoilt] == QueueDepth.Class())
            let others = try await fixture.consumer.wait(
                classes: JobClass.allCases, excluding: [QueueLocation(spoilt, partition: 0)], milliseconds: 1)
            #expect(others.isEmpty)
            try await fixture.consumer.forgetConsumer("w1")
            _ = try await fixture.consumer.sweepConsumers()
            for entry in taken.entries {
                let job = try Job(parsing: entry.job ?? [])
                guard case .claimed(let claim) = try await fixture.consumer.claim(job, entry: entry, leaseExpired: false) else {
                    Issue.record("not claimed")
                    continue
                }
                #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            }
            // A running job whose queue is overwritten still ends, once.
            try await fixture.redis.command("DEL", key)
            try await fixture.consumer.createGroups()
            let claim = try await fixture.running(QueueFixture.job("p0-last"))
            try await fixture.redis.command("SET", fixture.keys.queue(.standard, partition: 0), "x")
            #expect(try await fixture.consumer.renew([LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)]) == [.kept])
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await fixture.queue.record(claim.job.id)?.state == .finished)
        }
    }

    @Test func `a record of another type does not affect other renewals`() async throws {
        try await QueueFixture.run { fixture in
            var renewals: [LeaseRenewal] = []
            for name in ["p0-a", "p0-b", "p0-c"] {
                let claim = try await fixture.running(QueueFixture.job(name))
                renewals.append(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1))
            }
            try await fixture.redis.command("DEL", "{sluice.0}:job:p0-a")
            try await fixture.redis.command("SET", "{sluice.0}:job:p0-a", "x")
            try await fixture.redis.command("SADD", "{sluice.0}:interrupt:p0-b", "x")
            #expect(try await fixture.consumer.renew(renewals) == [.lost, .kept, .kept])
        }
    }

    /// Otherwise the job would be claimed again and again.
    @Test(arguments: ["job", "log", "interrupt"]) func `a job with a key of another type fails at its claim`(_ name: String) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job("p0-x")
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            let key = "{sluice.0}:\(name):p0-x"
            try await fixture.redis.command("DEL", key)
            try await fixture.redis.command("LPUSH", key, "x")
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            #expect(try await fixture.consumer.claim(job, entry: entry, leaseExpired: false) == .ended(.internal))
            let record = try #require(try await fixture.queue.record(job.id))
            #expect(record.state == .failed)
            #expect(try await fixture.queue.log(job.id, after: nil).count == 1)
            #expect(try await fixture.redis.command("XLEN", fixture.keys.queue(.standard, partition: 0)).integer == 0)
            #expect(try await fixture.redis.command("KEYS", "{sluice.0}:queued_bytes*").array?.isEmpty == true)
        }
    }

    /// The number of the attempt is lost with the record. Readers ignore an end with an id below those that they have.
    @Test(arguments: ["SET", "HSET"]) func `a running job whose record was overwritten ends for its readers`(_ command: String) async throws
    {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let (claim, received) = try await fixture.followed(job)
            let record = fixture.keys.record(job.id)
            try await fixture.redis.command("DEL", record)
            if command == "SET" {
                try await fixture.redis.command("SET", record, "x")
                let outcome = try await fixture.consumer.claim(job, entry: claim.entry, leaseExpired: true)
                #expect(outcome == .ended(.internal))
            } else {
                try await fixture.redis.command("HSET", record, "state", "queued")
                _ = try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: nil)
            }
            let end = try await received.wait({ "the end, \($0)" }) { $0.count == 4 ? $0.last : nil }
            #expect(end.id.description == "2-0" && end.event.type == (command == "SET" ? "failed" : "interrupted"))
            #expect(try await fixture.queue.log(job.id, after: nil).map(\.id.description) == ["1-0", "1-1", "1-2", "2-0"])
        }
    }

    /// Readers would take the events of another first attempt for those that they have.
    @Test func `a running job whose record was deleted goes on with its next attempt`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a")], of: claim)
            try await fixture.redis.command("DEL", fixture.keys.record(claim.job.id))
            let other = fixture.consumer("w2", token: "t2")
            guard case .claimed(let next) = try await other.claim(claim.job, entry: claim.entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2)
            #expect(try await fixture.queue.log(claim.job.id, after: nil).map(\.id.description) == ["1-0", "1-1", "2-0"])
        }
    }

    @Test func `a job does not continue the log of an ended one with its id`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let claim = try await fixture.running(job)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            try await fixture.redis.command("DEL", fixture.keys.record(job.id))
            let queue = fixture.keys.queue(.standard, partition: 0)
            try await fixture.redis.command("XADD", queue, "*", "job", String(decoding: job.json.bytes, as: UTF8.self))
            #expect(try await fixture.claimNext().attempt == 1)
            #expect(try await fixture.queue.log(job.id, after: nil).map(\.id.description) == ["1-0"])
        }
    }

    /// A worker repeats reads that fail: before each request to an upstream it looks for an interrupt.
    @Test func `keys of another type that a worker reads count as missing`() async throws {
        try await QueueFixture.run { fixture in
            let id = QueueFixture.job().id
            for key in [fixture.keys.interrupt(id), fixture.keys.audio(id)] { try await fixture.redis.command("LPUSH", key, "x") }
            #expect(try await fixture.consumer.interrupt(of: id) == nil)
            #expect(try await fixture.consumer.audio(of: id) == nil)
        }
    }

    /// Numbers that no script has written.
    @Test(arguments: ["abc", "-5", "1e300", "nan", "2147483647", "9223372036854775807"])
    func `invalid numbers in a record are ignored`(_ number: String) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job("p0-x")
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            try await fixture.redis.command("HSET", "{sluice.0}:job:p0-x", "attempt", number, "crashes", number)
            let claim = try await fixture.claimNext()
            #expect(claim.attempt == 1 && claim.crashes == 0)
        }
    }

    @Test func `derived keys of another type are created again`() async throws {
        try await QueueFixture.run { fixture in
            for key in ["waiting:tenant-a", "requests:g1", "queued_bytes:standard", "queued_bytes_of:tenant-a"] {
                try await fixture.redis.command("SET", "{sluice.0}:" + key, "x")
            }
            var options = SubmitOptions()
            options.gateway = "g1"
            options.endsWithGateway = true
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-x"), options: options) == .accepted)
            #expect(try await fixture.queue.requests(of: "g1", partition: 0, atMost: 9).map(\.rawValue) == ["p0-x"])
            try await fixture.redis.command("DEL", "{sluice.0}:waiting:tenant-a")
            try await fixture.redis.command("SET", "{sluice.0}:waiting:tenant-a", "x")
            _ = try await fixture.claimNext()
        }
    }

    @Test func `operator commands are read independently`() async throws {
        try await QueueFixture.run { fixture in
            let (redis, keys) = (fixture.redis, fixture.keys)
            #expect(
                try await fixture.consumer.operatorRequests()
                    == JobConsumer.OperatorRequests(isDrainRequested: false, pausedClasses: []))
            try await redis.command("SADD", keys.paused, "batch", "nonsense")
            try await redis.command("LPUSH", keys.drain("w1"), "x")
            #expect(
                try await fixture.consumer.operatorRequests()
                    == JobConsumer.OperatorRequests(isDrainRequested: false, pausedClasses: [.batch]))
            try await redis.command("DEL", keys.drain("w1"), keys.paused)
            try await redis.command("SET", keys.drain("w1"), "please")
            try await redis.command("SET", keys.paused, "x")
            #expect(
                try await fixture.consumer.operatorRequests()
                    == JobConsumer.OperatorRequests(isDrainRequested: true, pausedClasses: nil))
        }
    }
}
