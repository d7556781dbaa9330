import Contract
import NIOConcurrencyHelpers
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

@Suite(.serialized) struct EventFeedTests {
    /// Collects the events of one follower.
    private final class EventRecorder: Sendable {
        private let events = NIOLockedValueBox<[LoggedEvent]>([])
        var receive: @Sendable ([LoggedEvent]) -> Void { { [events] new in events.withLockedValue { $0 += new } } }
        var ids: [String] { events.withLockedValue { $0.map(\.id.description) } }
        var types: [String] { events.withLockedValue { $0.map(\.event.type) } }
    }

    private func waitFor(_ recorder: EventRecorder, _ ids: [String]) async throws {
        try await until("the follower to have \(ids), it has \(recorder.ids)") { recorder.ids == ids }
    }

    @Test func `follows a job from its submission`() async throws {
        try await QueueFixture.run { fixture in
            let recorder = EventRecorder()
            let job = QueueFixture.job()
            _ = await fixture.feed.follow(new: job.id, receive: recorder.receive)
            let claim = try await fixture.running(job)
            _ = try await fixture.write([.upstream(name: "u", model: "m"), .text("a")], of: claim)
            _ = try await fixture.finish(claim, .finished(.stop, .none), at: 3)
            try await waitFor(recorder, ["1-0", "1-1", "1-2", "1-3"])
            // The job has ended, so the channel is no longer subscribed.
            try await until("the channel to be unsubscribed") {
                try await fixture.redis.command("PUBSUB", "NUMSUB", fixture.keys.out(job.id))
                    == .array([.bulk(fixture.keys.out(job.id)), .integer(0)])
            }
        }
    }

    @Test func `a lost message is read from the log`() async throws {
        try await QueueFixture.run { fixture in
            let recorder = EventRecorder()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: recorder.receive)
            try await waitFor(recorder, ["1-0"])
            // Written to the log, but not published.
            let lost = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .text("lost"))
            _ = try await fixture.redis.command(
                "XADD", fixture.keys.log(claim.job.id), "1-1", "e", String(decoding: lost.json, as: UTF8.self))
            _ = try await fixture.write([.text("next")], of: claim, from: 2)
            try await waitFor(recorder, ["1-0", "1-1", "1-2"])
        }
    }

    @Test func `a lost terminal event is found without a later message`() async throws {
        try await QueueFixture.run { fixture in
            let recorder = EventRecorder()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: recorder.receive)
            try await waitFor(recorder, ["1-0"])
            let end = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .finished(.stop, .none))
            _ = try await fixture.redis.command(
                "XADD", fixture.keys.log(claim.job.id), "1-1", "e", String(decoding: end.json, as: UTF8.self))
            try await waitFor(recorder, ["1-0", "1-1"])
        }
    }

    @Test func `a closed subscription loses no events`() async throws {
        try await QueueFixture.run { fixture in
            let recorder = EventRecorder()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: recorder.receive)
            for sequence in 1...20 {
                if sequence % 5 == 0 { _ = try await fixture.redis.command("CLIENT", "KILL", "TYPE", "PUBSUB") }
                _ = try await fixture.write([.text("\(sequence)")], of: claim, from: sequence)
            }
            try await waitFor(recorder, (0...20).map { "1-\($0)" })
        }
    }

    /// A submission does not wait for the subscription: earlier events are read from the log.
    @Test(arguments: [false, true]) func `a job may start before its subscription is active`(ends: Bool) async throws {
        try await QueueFixture.run { fixture in
            let (recorder, job) = (EventRecorder(), QueueFixture.job())
            // The existing subscription connection is closed, so the next subscription waits for a new one.
            _ = try await fixture.feed.follow(QueueFixture.job().id, after: nil) { _ in }
            #expect(try await fixture.redis.command("CLIENT", "KILL", "TYPE", "PUBSUB") == .integer(1))
            _ = await fixture.feed.follow(new: job.id, receive: recorder.receive)
            let claim = try await fixture.running(job)
            _ = try await fixture.write([.text("a")], of: claim)
            if ends { _ = try await fixture.finish(claim, .finished(.stop, .none), at: 2) }
            try await waitFor(recorder, ends ? ["1-0", "1-1", "1-2"] : ["1-0", "1-1"])
        }
    }

    @Test func `resumes after the reader's last event`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a"), .text("b"), .text("c")], of: claim)
            let recorder = EventRecorder()
            _ = try await fixture.feed.follow(claim.job.id, after: EventID(attempt: 1, sequence: 2), receive: recorder.receive)
            try await waitFor(recorder, ["1-3"])
        }
    }

    @Test func `messages of a fenced attempt are dropped`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            let recorder = EventRecorder()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: recorder.receive)
            let other = fixture.consumer("w2", token: "t2")
            let entry = try await until("an expired lease") {
                try await other.take(partition: 0, classes: [.standard], count: 1).expired.first
            }
            guard case .claimed(let second) = try await other.claim(claim.job, entry: entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            // Refused by the log, but still published.
            _ = try await fixture.write([.text("old attempt")], of: claim)
            _ = try await fixture.write([.restarted, .text("new attempt")], of: second)
            try await waitFor(recorder, ["1-0", "2-0", "2-1", "2-2"])
        }
    }

    @Test func `readers of a job that Redis has lost receive a failure`() async throws {
        try await QueueFixture.run { fixture in
            let (running, waiting) = (EventRecorder(), EventRecorder())
            let claim = try await fixture.running(QueueFixture.job())
            let other = QueueFixture.job("p0-\(ULID(milliseconds: 2))")
            _ = try await fixture.queue.submit(other, options: SubmitOptions())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: running.receive)
            _ = try await fixture.feed.follow(other.id, after: nil, receive: waiting.receive)
            try await waitFor(running, ["1-0"])
            try await fixture.redis.command("FLUSHALL")
            // A late write does not recreate the log, which would have no beginning and no expiry.
            #expect(try await fixture.write([.text("late")], of: claim).first?.isNull == true)
            #expect(try await fixture.redis.command("EXISTS", fixture.keys.log(claim.job.id)) == .integer(0))
            try await until("both readers to receive the failure") {
                running.types.last == "failed" && waiting.types == ["failed"]
            }
            #expect(running.ids.last == "2-0" && waiting.ids == ["1-0"])
        }
    }

    /// Its client sends it again.
    @Test func `a job that was reported as lost does not run`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let reader = EventRecorder()
            _ = try await fixture.queue.submit(job, options: SubmitOptions())
            _ = try await fixture.feed.follow(job.id, after: nil, receive: reader.receive)
            try await fixture.redis.command("DEL", fixture.keys.record(job.id))
            try await until("the reader to receive the failure") { reader.types == ["failed"] }
            try await until("the interrupt") { try await fixture.redis.command("EXISTS", fixture.keys.interrupt(job.id)).integer == 1 }
            let entry = try #require(try await fixture.consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first)
            guard case .ended(nil) = try await fixture.consumer.claim(job, entry: entry, leaseExpired: false) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            #expect(try await fixture.queue.record(job.id)?.state == .interrupted)
        }
    }

    /// Waiting jobs publish nothing. They are looked at together, in a few commands for all of them.
    @Test func `silent jobs cost Redis a few commands`() async throws {
        try await QueueFixture.run { fixture in
            let jobs = (1...200).map { QueueFixture.job("p0-\(ULID(milliseconds: UInt64($0)))") }
            for job in jobs {
                _ = try await fixture.queue.submit(job, options: SubmitOptions())
                _ = await fixture.feed.follow(new: job.id) { _ in }
            }
            let admin = try await fixture.redis.connect()
            func calls() async throws -> [String: Int] {
                let info = try await admin.send("INFO", "commandstats").string ?? ""
                var calls: [String: Int] = [:]
                for line in info.split(whereSeparator: \.isNewline) {
                    guard line.hasPrefix("cmdstat_"), let end = line.firstIndex(of: ":"), let count = line.split(separator: ",").first
                    else { continue }
                    calls[String(line[..<end].dropFirst(8))] = count.split(separator: "=").last.flatMap { Int($0) }
                }
                return calls
            }
            // The first look reads the jobs' entries.
            try await until("the first look") { try await calls()["xread"] ?? 0 >= 1 }
            try await until("the end of the first look") { try await calls()["hget"] ?? 0 >= jobs.count }
            try await admin.send("CONFIG", "RESETSTAT")
            try await until("two further looks") { try await calls()["xread"] ?? 0 >= 2 }
            var found = try await calls()
            // The test's own commands.
            for name in ["info", "config|resetstat", "config"] { found[name] = nil }
            // Some calls may belong to the first look.
            #expect(found.values.reduce(0, +) < jobs.count, "\(found)")
            #expect(found["xread"] == 2 && found["exists"] == 2)
            await admin.close()
        }
    }

    @Test func `several followers of one job`() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let (first, second) = (EventRecorder(), EventRecorder())
            let following = try await fixture.feed.follow(claim.job.id, after: nil, receive: first.receive)
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: second.receive)
            _ = try await fixture.write([.text("a")], of: claim)
            try await waitFor(first, ["1-0", "1-1"])
            try await waitFor(second, ["1-0", "1-1"])
            fixture.feed.stop(following)
            _ = try await fixture.write([.text("b")], of: claim, from: 2)
            try await waitFor(second, ["1-0", "1-1", "1-2"])
            #expect(first.ids == ["1-0", "1-1"])
        }
    }
}
