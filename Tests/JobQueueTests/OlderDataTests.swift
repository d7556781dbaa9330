import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Redis has come back with older data, or lost a queue: what the scripts make of it.
@Suite(.serialized) struct OlderDataTests {
    /// Takes over whatever may be taken over.
    private func takeOver(_ fixture: QueueFixture, by consumer: JobConsumer, knownAttempt: Int = 0) async throws -> ClaimOutcome {
        let found = try await consumer.take(partition: 0, classes: [.standard], count: 10).expired
        let entry = try #require(found.first)
        return try await consumer.claim(
            Job(parsing: entry.job ?? []), entry: entry, leaseExpired: true, knownAttempt: knownAttempt)
    }

    @Test func `an attempt whose claim was lost is not given out again`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let record = fixture.keys.record(claim.job.id)
            _ = try await fixture.redis.command("HSET", record, "state", "queued", "attempt", "0")
            _ = try await fixture.redis.command("HDEL", record, "token", "worker")
            _ = try await fixture.redis.command("DEL", fixture.keys.log(claim.job.id))
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            #expect(try await fixture.consumer.renew([renewal]) == [.lost])
            guard case .claimed(let next) = try await takeOver(fixture, by: fixture.consumer("w2", token: "t2")) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2 && next.crashes == 0)
        }
    }

    @Test func `an attempt that two workers own is replaced by a new one`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            _ = try await fixture.redis.command("HSET", fixture.keys.record(claim.job.id), "token", "t2", "worker", "w2")
            #expect(try await fixture.consumer.renew([renewal]) == [.lost])
            #expect(try await fixture.consumer("w2", token: "t2").renew([renewal]) == [.lost])
            guard case .claimed(let next) = try await takeOver(fixture, by: fixture.consumer) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2 && next.crashes == 0)
        }
    }

    @Test func `a renewal reports the newest event and the interrupt`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a")], of: claim)
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            let newest = EventID(attempt: 1, sequence: 1)
            let kept = try #require(try await fixture.consumer.validate([renewal]).first)
            #expect(kept.answer == .kept && kept.log == LogState(newest: newest))
            _ = try await fixture.queue.interrupt(claim.job.id, reason: "USER_STOP", owner: nil)
            let interrupt = Interrupt(id: claim.job.id, reason: "USER_STOP")
            let report = try #require(try await fixture.consumer.validate([renewal]).first)
            #expect(report.answer == .interrupted(interrupt) && report.log == LogState(newest: newest))
        }
    }

    /// The same process claims an entry again that it had claimed, written and forgotten.
    @Test func `a repeated claim of a job with output starts a new attempt`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a")], of: claim)
            let known = try await fixture.consumer.claim(claim.job, entry: claim.entry, leaseExpired: false, knownAttempt: 1)
            #expect(known == .busy, "the renewal decides")
            guard case .claimed(let next) = try await fixture.consumer.claim(claim.job, entry: claim.entry, leaseExpired: false) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2 && next.crashes == 0)
        }
    }

    @Test func `a repeated claim of an interrupted job ends it`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.queue.interrupt(claim.job.id, reason: "USER_STOP", owner: nil)
            #expect(try await fixture.consumer.claim(claim.job, entry: claim.entry, leaseExpired: false) == .ended(nil))
            #expect(try await fixture.queue.record(claim.job.id)?.state == .interrupted)
        }
    }

    @Test func `a job that was queued again gets an attempt newer than the known one`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.redis.command("HSET", fixture.keys.record(claim.job.id), "state", "queued", "attempt", "0")
            let outcome = try await fixture.consumer.claim(claim.job, entry: claim.entry, leaseExpired: false, knownAttempt: 3)
            guard case .claimed(let next) = outcome else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(next.attempt == 4 && next.crashes == 0)
        }
    }

    @Test(arguments: [1, 50]) func `a reader with later events than the terminal one is told the end`(_ last: Int) async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            #expect(try await fixture.finish(claim, .finished(.stop, .none), at: 1) == .integer(1))
            let received = Observed<[LoggedEvent]>([])
            _ = try await fixture.feed.follow(claim.job.id, after: EventID(attempt: 1, sequence: last)) { events in
                received.update { $0 += events }
            }
            let event = try await received.wait({ "the end, \($0)" }) { $0.last }
            // Above what the reader has.
            #expect(event.event.type == "finished" && event.id.description == (last == 1 ? "1-1" : "2-0"))
        }
    }

    /// Read by one command: two would show another history when a worker writes the rest of the log between them.
    @Test func `a log is read from the last event of a reader on`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a"), .text("b")], of: claim)
            func history(_ sequence: Int) async throws -> (text: String?, reached: String?) {
                let found = try await fixture.queue.history(claim.job.id, at: EventID(attempt: 1, sequence: sequence))
                return (found.logged?.event.type, found.reached?.description)
            }
            #expect(try await history(2) == ("text", "1-2"))
            #expect(try await history(3) == (nil, nil))
            try await fixture.redis.command("XADD", fixture.keys.log(claim.job.id), "2-0", "e", #"{"id":"2-0","type":"started"}"#)
            #expect(try await history(3) == (nil, "2-0"))
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            _ = try await history(1)
            #expect(try await LeaseIndexTests.calls(fixture)["xrange"] == 1)
            #expect(try await LeaseIndexTests.calls(fixture)["xrevrange"] == nil)
        }
    }

    /// The claim was lost, so that the interrupt of the waiting job has the id of the event that the claim wrote.
    @Test(arguments: [false, true])
    func `a reader that has the start of a lost attempt is told the interrupt`(isSubscribed: Bool) async throws {
        try await QueueFixture.run { fixture in
            let received = Observed<[LoggedEvent]>([])
            let job = QueueFixture.job()
            _ = await fixture.feed.follow(new: job.id) { events in received.update { $0 += events } }
            _ = try await fixture.running(job)
            _ = try await received.wait({ "the start, \($0)" }) { $0.last }
            let record = fixture.keys.record(job.id)
            _ = try await fixture.redis.command("DEL", fixture.keys.log(job.id))
            _ = try await fixture.redis.command("HSET", record, "state", "queued", "attempt", "0")
            _ = try await fixture.redis.command("HDEL", record, "token", "worker")
            let interrupt = { _ = try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: nil) }
            if !isSubscribed { try await interrupt() }
            _ = try await fixture.redis.command("CLIENT", "KILL", "TYPE", "PUBSUB")
            if isSubscribed {
                try await until("the subscription to be renewed") {
                    try await fixture.redis.command("PUBSUB", "NUMSUB", fixture.keys.out(job.id))
                        == .array([.bulk(fixture.keys.out(job.id)), .integer(1)])
                }
                try await interrupt()
            }
            try await received.wait({ "the end, \($0)" }) { $0.last?.event.isTerminal == true ? () : nil }
            #expect(received.value.map { "\($0.id) \($0.event.type)" } == ["1-0 started", "2-0 interrupted"])
        }
    }

    /// The claim of w1 was lost, and w2 was given the same attempt. w1 is gone.
    @Test func `a reader that has seen another history of an attempt is shown a new attempt only`() async throws {
        try await QueueFixture.run { fixture in
            let received = Observed<[LoggedEvent]>([])
            let job = QueueFixture.job()
            _ = await fixture.feed.follow(new: job.id) { events in received.update { $0 += events } }
            let first = try await fixture.running(job)
            _ = try await fixture.write([.text("a"), .text("b")], of: first)
            for sequence in 0...2 {
                try await received.wait({ "event 1-\(sequence), \($0)" }) { events in
                    events.contains { $0.id == EventID(attempt: 1, sequence: sequence) } ? () : nil
                }
            }
            // Redis has the same attempt of another worker, with more text.
            let log = fixture.keys.log(job.id)
            var commands = [["DEL", log], ["HSET", fixture.keys.record(job.id), "token", "t2", "worker", "w2"]]
            let events: [GenerationEvent] = [.started(worker: "w2", attempt: 1), .text("x"), .text("y"), .text("z")]
            for (sequence, event) in events.enumerated() {
                let logged = LoggedEvent(id: EventID(attempt: 1, sequence: sequence), event: event)
                commands.append(["XADD", log, "\(logged.id)", "e", String(decoding: logged.json, as: UTF8.self)])
            }
            // The messages were published while the gateway was not connected. At once, so that no check of the gateway comes in between.
            commands.append(["CLIENT", "KILL", "TYPE", "pubsub"])
            let connection = try await fixture.redis.connect()
            for command in [["MULTI"]] + commands + [["EXEC"]] { _ = try await connection.send(command) }
            await connection.close()
            try await until("the job to be queued again") { try await fixture.queue.record(job.id)?.state == .queued }
            #expect(try await fixture.queue.log(job.id, after: nil).isEmpty, "the next attempt does not continue the other history")
            #expect(try await fixture.write([.text("w")], of: first, from: 4).contains { if case .error = $0 { true } else { false } })
            guard case .claimed(let next) = try await takeOver(fixture, by: fixture.consumer("w3", token: "t3")) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2 && next.crashes == 0)
            try await received.wait({ "attempt 2, \($0)" }) { events in
                events.contains { $0.id == EventID(attempt: 2, sequence: 0) } ? () : nil
            }
            #expect(received.value.map(\.id.description) == ["1-0", "1-1", "1-2", "2-0"])
        }
    }

    @Test func `only interrupts that Redis has lost are sent again`() async throws {
        try await QueueFixture.run { fixture in
            let (kept, lost) = (QueueFixture.job(), QueueFixture.job("p0-\(ULID(milliseconds: 2))"))
            for job in [kept, lost] {
                #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
                _ = try await fixture.queue.interrupt(job.id, reason: "USER_STOP", owner: nil)
            }
            let lostKeys = [fixture.keys.interrupt(lost.id), fixture.keys.log(lost.id)]
            #expect(try await fixture.redis.command("DEL", lostKeys[0], lostKeys[1]) == .integer(2))
            _ = try await fixture.redis.command("HSET", fixture.keys.record(lost.id), "state", "queued")
            #expect(await fixture.queue.repeatInterrupts() == [], "the connection is the same")
            _ = try await fixture.redis.command("CLIENT", "KILL", "TYPE", "NORMAL")
            try await until("the interrupt to be sent again") { await fixture.queue.repeatInterrupts() == [lost.id] }
            #expect(try await fixture.queue.record(lost.id)?.state == .interrupted)
            _ = try await fixture.redis.command("CLIENT", "KILL", "TYPE", "NORMAL")
            try await until("a new connection") { (try? await fixture.queue.record(kept.id)) != nil }
            #expect(await fixture.queue.repeatInterrupts() == [], "Redis has both")
        }
    }

    // MARK: lost queues

    /// An operator has deleted or trimmed the queue.
    @Test(arguments: [["DEL", "{sluice.0}:queue:standard"], ["XTRIM", "{sluice.0}:queue:standard", "MAXLEN", "0"]])
    func `a waiting job whose entry is gone fails for its readers`(_ command: [String]) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let received = Observed<[LoggedEvent]>([])
            _ = await fixture.feed.follow(new: job.id) { events in received.update { $0 += events } }
            #expect(try await fixture.queue.submit(job, options: SubmitOptions()) == .accepted)
            let admin = try await fixture.redis.connect()
            try await admin.send(command)
            let event = try await received.wait({ "the end, \($0)" }) { $0.last }
            guard case .failed(let failure, _) = event.event else { throw QueueFixture.FixtureError.nothingToClaim }
            #expect(failure.code == .internal && failure.retryable)
            let record = fixture.keys.record(job.id)
            #expect(try await admin.send("HGET", record, "state").string == "failed")
            #expect(try await admin.send("TTL", record).integer ?? -1 > 0)
            #expect(try await admin.send("SCARD", "{sluice.0}:waiting:tenant-a").integer == 0)
            await admin.close()
        }
    }

    @Test func `a running job whose entry is gone fails a lease after its last renewal`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(60)
        try await QueueFixture.run(settings: settings) { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.redis.command("DEL", fixture.keys.queue(.standard, partition: 0))
            let record = fixture.keys.record(claim.job.id)
            #expect(try await fixture.consumer.renew([LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)]) == [.kept])
            try await fixture.queue.endJobsWithoutEntry([(claim.job.id, nil, 0)])
            #expect(try await fixture.queue.record(claim.job.id)?.state == .running)
            let renewed = try #require(try await fixture.redis.command("HGET", record, "unlisted_ms").integer)
            _ = try await fixture.redis.command("HSET", record, "unlisted_ms", "\(renewed - 61_000)")
            try await fixture.queue.endJobsWithoutEntry([(claim.job.id, nil, 0)])
            #expect(try await fixture.queue.record(claim.job.id)?.state == .failed)
            #expect(try await fixture.queue.log(claim.job.id, after: nil).last?.id == EventID(attempt: 2, sequence: 0))
        }
    }

    @Test func `jobs with an entry are not ended`() async throws {
        try await QueueFixture.run { fixture in
            let running = try await fixture.running(QueueFixture.job())
            let waiting = QueueFixture.job("p0-\(ULID(milliseconds: 2))")
            #expect(try await fixture.queue.submit(waiting, options: SubmitOptions()) == .accepted)
            try await fixture.queue.endJobsWithoutEntry([(running.job.id, nil, 1), (waiting.id, nil, 0)])
            #expect(try await fixture.queue.record(running.job.id)?.state == .running)
            #expect(try await fixture.queue.record(waiting.id)?.state == .queued)
        }
    }

    @Test func `a deleted group of one class is made again by the renewal`() async throws {
        try await QueueFixture.run { fixture in
            var renewals: [LeaseRenewal] = []
            for priority in JobClass.allCases {
                var job = QueueFixture.job("p0-\(ULID(milliseconds: 1))")
                job.priority = priority
                let claim = try await fixture.running(job)
                renewals.append(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1))
            }
            let queue = fixture.keys.queue(.batch, partition: 0)
            _ = try await fixture.redis.command("XGROUP", "DESTROY", queue, Keys.group)
            #expect(try await fixture.consumer.renew(renewals) == [.kept, .kept, .kept])
            let pending = try await fixture.redis.command("XPENDING", queue, Keys.group, "-", "+", "10")
            #expect(pending.array?.first?.array?[1].string == "w1", "\(pending)")
            _ = try await fixture.redis.command("DEL", queue)
            #expect(try await fixture.consumer.renew(renewals) == [.kept, .kept, .kept])
        }
    }

    @Test func `a job without an entry is handed back with a new one`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let queue = fixture.keys.queue(.standard, partition: 0)
            _ = try await fixture.redis.command("DEL", queue)
            #expect(try await fixture.consumer.handBack(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)))
            let next = try await fixture.claimNext(fixture.consumer("w2", token: "t2"))
            #expect(next.job == claim.job && next.attempt == 2 && next.crashes == 0)
        }
    }

    @Test func `a job whose log lacks output is handed back with an empty log`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a")], of: claim)
            let renewal = LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1)
            #expect(try await fixture.consumer.handBack(renewal, startsAgain: true))
            #expect(try await fixture.queue.log(claim.job.id, after: nil).isEmpty)
            guard case .claimed(let next) = try await takeOver(fixture, by: fixture.consumer("w2", token: "t2")) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(next.attempt == 2 && next.crashes == 0)
        }
    }

    @Test func `a job that cannot be queued is not handed back`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let queue = fixture.keys.queue(.standard, partition: 0)
            _ = try await fixture.redis.command("SET", queue, "x")
            await #expect(throws: RedisError.self) {
                _ = try await fixture.consumer.handBack(LeaseRenewal(id: claim.job.id, entry: claim.entry, attempt: 1))
            }
            #expect(try await fixture.queue.record(claim.job.id)?.state == .running)
        }
    }
}
