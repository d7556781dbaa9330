import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

@Suite(.serialized) struct LifeOfAJobTests {
    @Test func `a job runs from submission to its end`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let claim = try await fixture.running(job)
            #expect(claim.attempt == 1 && claim.crashes == 0 && claim.job == job)
            _ = try await fixture.write([.upstream(name: "u", model: "m"), .text("hello")], of: claim)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 3) == .integer(1))
            let log = try await fixture.queue.log(job.id, after: nil)
            #expect(log.map(\.event.type) == ["started", "upstream", "text", "finished"])
            #expect(log.map(\.id.sequence) == [0, 1, 2, 3])
            let record = try #require(try await fixture.queue.record(job.id))
            #expect(record.state == .finished && record.fields["worker"] == "w1" && record.fields["reason"] == "stop")
            #expect(record.fields["token"] == nil && record.fields["entry"] == nil)
            let waiting = try await fixture.redis.command("XLEN", "{sluice.0}:queue:standard")
            #expect(waiting == .integer(0))
            for key in [fixture.keys.record(job.id), fixture.keys.log(job.id)] {
                guard case .integer(let seconds) = try await fixture.redis.command("TTL", key) else {
                    throw QueueFixture.FixtureError.notAccepted
                }
                #expect((1...600).contains(seconds))
            }
        }
    }

    @Test func `a job ends only once`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(0))
            #expect(try await fixture.queue.log(claim.job.id, after: nil).count == 2)
        }
    }

    @Test func `a terminal event after a gap is refused`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 3) == .integer(-1))
            #expect(try await fixture.queue.record(claim.job.id)?.state == .running)
        }
    }

    @Test func `takes classes in order and at most the requested count`() async throws {
        try await QueueFixture.run { fixture in
            for priority in [JobClass.batch, .standard, .interactive, .interactive] {
                var job = QueueFixture.job("p0-\(ULID(milliseconds: 1))")
                job.priority = priority
                #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            }
            let taken = try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 3).entries
            #expect(taken.map(\.priority) == [.interactive, .interactive, .standard])
        }
    }

    @Test func `an interrupt ends a waiting job`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            let answer = try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: "tenant-a")
            #expect(answer == InterruptAnswer(state: .queued, stored: true))
            let log = try await fixture.queue.log(job.id, after: nil)
            #expect(log.map(\.id.description) == ["1-0"])
            guard case .interrupted(let interruption) = log[0].event else { throw QueueFixture.FixtureError.nothingToClaim }
            var usage = Usage.none
            usage.billing = .exact
            #expect(interruption.phase == .queued && interruption.reason == "USER_STOP" && interruption.usage == usage)
            #expect(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.isEmpty)
            #expect(
                try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: nil)
                    == InterruptAnswer(state: .interrupted, stored: false))
        }
    }

    @Test func `another owner's job is unknown`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job(owner: "tenant-a"))
            let answer = try await fixture.queue.interrupt(claim.job.id, reason: "USER_STOP", owner: "tenant-b")
            #expect(answer == InterruptAnswer(state: nil, stored: false))
            #expect(try await fixture.consumer.interrupt(of: claim.job.id) == nil)
        }
    }

    @Test func `the interrupt key is found at the renewal`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            #expect(try await fixture.consumer.renew([renewal]) == [.kept])
            #expect(try await fixture.queue.interrupt(claim.job.id, reason: "USER_STOP", owner: nil).stored)
            #expect(try await fixture.consumer.renew([renewal]) == [.interrupted(Interrupt(id: claim.job.id, reason: "USER_STOP"))])
        }
    }

    @Test func `an interrupt key set by hand is found at the claim`() async throws {
        try await QueueFixture.run { fixture in
            let id = JobID("by-hand")!
            _ = try await fixture.queue.forceInterrupt(id, reason: "USER_STOP")
            _ = try await fixture.redis.command("XADD", "{sluice.0}:queue:batch", "*", "job", #"{"id":"by-hand","request":{}}"#)
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            let outcome = try await fixture.consumer.claim(try Job(parsing: entry.job ?? []), entry: entry, leaseExpired: false)
            #expect(outcome == .ended(nil))
            #expect(try await fixture.queue.log(id, after: nil).map(\.event.type) == ["interrupted"])
            #expect(try await fixture.queue.record(id)?.fields["class"] == "batch")
        }
    }

    @Test func `repeating a claim returns the same claim`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let again = try await fixture.consumer.claim(claim.job, entry: claim.entry, leaseExpired: false)
            guard case .claimed(let second) = again else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(second.attempt == 1)
            #expect(try await fixture.queue.log(claim.job.id, after: nil).count == 1)
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.claim(claim.job, entry: claim.entry, leaseExpired: false) == .busy)
        }
    }

    /// The worker has recorded no usage.
    @Test func `the usage of a job that fails with its worker is an estimate of what was delivered`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            var job = QueueFixture.job()
            job.onCrash = .fail
            let claim = try await fixture.running(job)
            _ = try await fixture.write([.text("twelve ascii"), .reasoning("日本"), .text("four")], of: claim)
            let other = fixture.consumer("w2", token: "t2")
            let found = try await until("an expired lease") {
                try await other.take(partition: 0, classes: [.standard], count: 10).expired.first
            }
            #expect(try await other.claim(job, entry: found, leaseExpired: true) == .ended(.workerLost))
            guard case .failed(_, let usage) = try await fixture.queue.log(job.id, after: nil).last?.event else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(usage == Usage(promptTokens: 0, completionTokens: 5, estimated: true))
        }
    }

    @Test func `a second entry of the same job is dropped`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.redis.command("XADD", "{sluice.0}:queue:standard", "*", "job", claim.job.json.text)
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            #expect(try await fixture.consumer.claim(claim.job, entry: entry, leaseExpired: false) == .gone)
            #expect(try await fixture.redis.command("XLEN", "{sluice.0}:queue:standard") == .integer(1))
        }
    }

    @Test func `an expired job is taken over and its old owner fenced`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let other = fixture.consumer("w2", token: "t2")
            let found = try await until("an expired lease") {
                try await other.take(partition: 0, classes: [.standard], count: 10).expired.first
            }
            guard case .claimed(let second) = try await other.claim(claim.job, entry: found, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(second.attempt == 2 && second.crashes == 1)
            // From now on the first owner cannot write, end the job, or renew its lease.
            let refused = try await fixture.write([.text("late")], of: claim)
            #expect(refused[0].errorText?.contains("equal or smaller") == true)
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(0))
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            #expect(try await fixture.consumer.renew([renewal]) == [.lost])
            #expect(try await fixture.queue.log(claim.job.id, after: nil).map(\.id.description) == ["1-0", "2-0"])
        }
    }

    @Test func `a job that exceeds its crashes becomes a dead letter`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        settings.maximumCrashes = 2
        try await QueueFixture.run(settings: settings) { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            for (name, expected) in [("w2", 2), ("w3", 0)] {
                let other = fixture.consumer(name, token: name)
                let entry = try await until("an expired lease") {
                    try await other.take(partition: 0, classes: [.standard], count: 10).expired.first
                }
                let outcome = try await other.claim(claim.job, entry: entry, leaseExpired: true)
                if case .claimed(let next) = outcome {
                    #expect(next.attempt == expected)
                } else {
                    #expect(expected == 0 && outcome == .ended(.workerLost))
                }
            }
            let log = try await fixture.queue.log(claim.job.id, after: nil)
            #expect(log.map(\.id.description) == ["1-0", "2-0", "3-0"])
            guard case .failed(let failure, _) = try #require(log.last).event else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(failure.code == .workerLost)
            let record = try #require(try await fixture.queue.record(claim.job.id))
            #expect(record.state == .failed && record.attempt == 2 && record.fields["crashes"] == "2")
            #expect(try await fixture.redis.command("XLEN", "{sluice.0}:dead") == .integer(1))
        }
    }

    @Test func `a hand-back does not count as a crash`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            #expect(try await fixture.consumer.handBack(renewal))
            #expect(try await fixture.queue.record(claim.job.id)?.state == .queued)
            let other = fixture.consumer("w2", token: "t2")
            // At once, although the lease lasts for another 15 s.
            let entry = try #require(try await other.take(partition: 0, classes: [.standard], count: 10).expired.first)
            guard case .claimed(let second) = try await other.claim(claim.job, entry: entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(second.attempt == 2 && second.crashes == 0)
            #expect(try await fixture.consumer.handBack(renewal) == false)
        }
    }

    @Test func `an invalid entry is removed and fails`() async throws {
        try await QueueFixture.run { fixture in
            for text in ["rubbish", #"{"id":"odd","request":{},"colour":"green"}"#] {
                _ = try await fixture.redis.command("XADD", "{sluice.0}:queue:standard", "*", "job", text)
                let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
                do throws(JobError) {
                    _ = try Job(parsing: entry.job ?? [])
                    Issue.record("\(text) is a job")
                } catch {
                    try? await fixture.consumer.reject(entry, id: error.id, message: error.reason, toDeadLetters: false)
                }
            }
            #expect(try await fixture.redis.command("XLEN", "{sluice.0}:queue:standard") == .integer(0))
            let log = try await fixture.queue.log(JobID("odd")!, after: nil)
            guard case .failed(let failure, _) = try #require(log.first).event else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(failure.code == .invalidRequest && failure.message.contains("colour"))
        }
    }

    @Test func `consumers of dead workers are swept`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            let (idle, busy, alive) = (
                fixture.consumer("idle", token: "t2"), fixture.consumer("busy", token: "t3"), fixture.consumer("alive", token: "t4")
            )
            // Each has received an entry; one still has it, one has a heartbeat.
            for consumer in [idle, alive] {
                _ = try await fixture.queue.submit(QueueFixture.job("p0-\(consumer.worker)"), options: SubmitOptions())
                let claim = try await fixture.claimNext(consumer)
                #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            }
            _ = try await fixture.queue.submit(QueueFixture.job(), options: SubmitOptions())
            _ = try await fixture.claimNext(busy)
            try await fixture.redis.command("HSET", fixture.keys.worker("alive"), "capacity", "1")
            let swept: [String] = try await until("a sweep that finds something", every: .milliseconds(100)) {
                let names = try await fixture.consumer.sweepConsumers().removed
                return names.isEmpty ? nil : names
            }
            // Since Redis 7.2 a read without entries creates the consumer: `busy` is removed from the queues where it has no entry.
            #expect(Set(swept).subtracting(["busy"]) == ["idle"])
            let consumers = try await fixture.redis.command("XINFO", "CONSUMERS", "{sluice.0}:queue:standard", Keys.group)
            #expect(Set((consumers.array ?? []).compactMap { $0.fields["name"] }) == ["busy", "alive"])
            // Only one worker sweeps, once in two lease times.
            #expect(try await alive.sweepConsumers() == JobConsumer.Sweep())
        }
    }

    /// XGROUP DELCONSUMER deletes the consumer's pending list, by which other workers would find its jobs.
    @Test func `jobs of a deleted consumer are taken over`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(700)
        try await QueueFixture.run(settings: settings) { fixture in
            let claims = [try await fixture.running(QueueFixture.job("p0-a")), try await fixture.running(QueueFixture.job("p0-b"))]
            let queue = fixture.keys.queue(.standard, partition: 0)
            try await fixture.redis.command("XGROUP", "DELCONSUMER", queue, Keys.group, "w1")
            let other = fixture.consumer("w2", token: "t2")
            let restored = try await until("a sweep") {
                let count = try await other.sweepConsumers().restored
                return count > 0 ? count : nil
            }
            #expect(restored == 2)
            var found: [QueueEntry] = []
            _ = try await until("both leases to expire") {
                found += try await other.take(partition: 0, classes: [.standard], count: 10).expired
                return Set(found.map(\.id)) == Set(claims.map(\.entry.id)) ? true : nil
            }
            let entry = try #require(found.first { $0.id == claims[1].entry.id })
            guard case .claimed(let second) = try await other.claim(claims[1].job, entry: entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(second.attempt == 2)
            // A waiting job is delivered as usual.
            _ = try await fixture.queue.submit(QueueFixture.job("p0-waiting"), options: SubmitOptions())
            #expect(try await other.take(partition: 0, classes: JobClass.allCases, count: 9).entries.count == 1)
        }
    }

    @Test func `an unclaimed entry is put back`() async throws {
        try await QueueFixture.run { fixture in
            #expect(try await fixture.queue.submit(QueueFixture.job(), options: SubmitOptions()) == .accepted)
            let entries = try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries
            try await fixture.consumer.putBack(entries)
            let other = fixture.consumer("w2", token: "t2")
            #expect(try await other.take(partition: 0, classes: [.standard], count: 1).expired == entries)
        }
    }
}
