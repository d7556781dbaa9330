import Contract
import NIOConcurrencyHelpers
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

@Suite(.serialized) struct EventFeedTests {
    /// What a follower was given.
    private final class Heard: Sendable {
        private let events = NIOLockedValueBox<[LoggedEvent]>([])
        var receive: @Sendable ([LoggedEvent]) -> Void { { [events] new in events.withLockedValue { $0 += new } } }
        var ids: [String] { events.withLockedValue { $0.map(\.id.description) } }
        var types: [String] { events.withLockedValue { $0.map(\.event.type) } }
    }

    private func waitFor(_ heard: Heard, _ ids: [String]) async throws {
        try await until("the follower to have \(ids), it has \(heard.ids)") { heard.ids == ids }
    }

    @Test func followsFromTheSubmissionOn() async throws {
        try await QueueFixture.run { fixture in
            let heard = Heard()
            let job = QueueFixture.job()
            _ = await fixture.feed.follow(new: job.id, receive: heard.receive)
            let claim = try await fixture.running(job)
            _ = try await fixture.write([.upstream(name: "u", model: "m"), .text("a")], of: claim)
            _ = try await fixture.finish(claim, .finished(.stop, .none), at: 3)
            try await waitFor(heard, ["1-0", "1-1", "1-2", "1-3"])
            // It ended by itself: the channel is no longer subscribed.
            try await until("the channel to be left") {
                try await fixture.redis.command("PUBSUB", "NUMSUB", fixture.keys.out(job.id))
                    == .array([.bulk(fixture.keys.out(job.id)), .integer(0)])
            }
        }
    }

    @Test func aMessageThatWasLostIsReadFromTheLog() async throws {
        try await QueueFixture.run { fixture in
            let heard = Heard()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: heard.receive)
            try await waitFor(heard, ["1-0"])
            // Written, not published.
            let lost = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .text("lost"))
            _ = try await fixture.redis.command(
                "XADD", fixture.keys.log(claim.job.id), "1-1", "e", String(decoding: lost.json, as: UTF8.self))
            _ = try await fixture.write([.text("heard")], of: claim, from: 2)
            try await waitFor(heard, ["1-0", "1-1", "1-2"])
        }
    }

    @Test func anEndThatNothingFollowsIsFound() async throws {
        try await QueueFixture.run { fixture in
            let heard = Heard()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: heard.receive)
            try await waitFor(heard, ["1-0"])
            let end = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .finished(.stop, .none))
            let begun = ContinuousClock.now
            _ = try await fixture.redis.command(
                "XADD", fixture.keys.log(claim.job.id), "1-1", "e", String(decoding: end.json, as: UTF8.self))
            try await waitFor(heard, ["1-0", "1-1"])
            #expect(ContinuousClock.now - begun < .seconds(2) + .milliseconds(500))
        }
    }

    @Test func aCutSubscriptionLosesNothing() async throws {
        try await QueueFixture.run { fixture in
            let heard = Heard()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: heard.receive)
            for sequence in 1...20 {
                if sequence % 5 == 0 { _ = try await fixture.redis.command("CLIENT", "KILL", "TYPE", "PUBSUB") }
                _ = try await fixture.write([.text("\(sequence)")], of: claim, from: sequence)
            }
            try await waitFor(heard, (0...20).map { "1-\($0)" })
        }
    }

    /// The submission does not wait for the subscription: whatever comes before that is in force is read from the log.
    @Test(arguments: [false, true]) func aJobMayBeginBeforeItsSubscriptionIsInForce(ends: Bool) async throws {
        try await QueueFixture.run { fixture in
            let (heard, job) = (Heard(), QueueFixture.job())
            // Its connection is known as one of subscriptions, and cut: the next one has to wait for a new one.
            _ = try await fixture.feed.follow(QueueFixture.job().id, after: nil) { _ in }
            #expect(try await fixture.redis.command("CLIENT", "KILL", "TYPE", "PUBSUB") == .integer(1))
            _ = await fixture.feed.follow(new: job.id, receive: heard.receive)
            let claim = try await fixture.running(job)
            _ = try await fixture.write([.text("a")], of: claim)
            if ends { _ = try await fixture.finish(claim, .finished(.stop, .none), at: 2) }
            try await waitFor(heard, ends ? ["1-0", "1-1", "1-2"] : ["1-0", "1-1"])
        }
    }

    @Test func resumesAfterWhatTheReaderHas() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.write([.text("a"), .text("b"), .text("c")], of: claim)
            let heard = Heard()
            _ = try await fixture.feed.follow(claim.job.id, after: EventID(attempt: 1, sequence: 2), receive: heard.receive)
            try await waitFor(heard, ["1-3"])
        }
    }

    @Test func aZombiesMessagesArePassedToNobody() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            let heard = Heard()
            let claim = try await fixture.running(QueueFixture.job())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: heard.receive)
            let other = fixture.consumer("w2", token: "t2")
            let entry = try await until("an expired lease") {
                try await other.takeOver(partition: 0, priority: .standard, cursor: "0-0", count: 1).entries.first
            }
            guard case .claimed(let second) = try await other.claim(claim.job, entry: entry, leaseExpired: true) else {
                throw QueueFixture.FixtureError.nothingToClaim
            }
            // Refused by the log, but published all the same.
            _ = try await fixture.write([.text("from the dead")], of: claim)
            _ = try await fixture.write([.restarted, .text("from the living")], of: second)
            try await waitFor(heard, ["1-0", "2-0", "2-1", "2-2"])
        }
    }

    @Test func readersOfAJobThatRedisLostAreTold() async throws {
        try await QueueFixture.run { fixture in
            let (running, waiting) = (Heard(), Heard())
            let claim = try await fixture.running(QueueFixture.job())
            let other = QueueFixture.job("p0-\(ULID(milliseconds: 2))")
            _ = try await fixture.queue.submit(other, options: SubmitOptions())
            _ = try await fixture.feed.follow(claim.job.id, after: nil, receive: running.receive)
            _ = try await fixture.feed.follow(other.id, after: nil, receive: waiting.receive)
            try await waitFor(running, ["1-0"])
            try await fixture.redis.command("FLUSHALL")
            // Nor does a late write bring a log back that has no beginning and never expires.
            #expect(try await fixture.write([.text("late")], of: claim).first?.isNull == true)
            #expect(try await fixture.redis.command("EXISTS", fixture.keys.log(claim.job.id)) == .integer(0))
            try await until("both readers to be told", deadline: .seconds(20)) {
                running.types.last == "failed" && waiting.types == ["failed"]
            }
            #expect(running.ids.last == "2-0" && waiting.ids == ["1-0"])
        }
    }

    @Test func manyFollowersOfOneJob() async throws {
        try await QueueFixture.run { fixture in
            let claim = try await fixture.running(QueueFixture.job())
            let (first, second) = (Heard(), Heard())
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
