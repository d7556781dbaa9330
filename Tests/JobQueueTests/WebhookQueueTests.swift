import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

@Suite(.serialized, .timeLimit(.minutes(5))) struct WebhookQueueTests {
    private func store(_ fixture: QueueFixture, _ id: JobID, isBackground: Bool = true) async throws {
        let store = ResponseStore(queue: fixture.queue, ttl: .seconds(1_000), maximumBytes: 0)
        let response = StoredResponse(
            owner: "tenant-a", created: 1, isBackground: isBackground, summarizes: false, echo: JSONObject(), items: [])
        #expect(try await store.save(id, response))
    }

    private func take(_ fixture: QueueFixture, lease: Duration = .seconds(60)) async throws -> [DueWebhook] {
        try await fixture.consumer.takeWebhooks(partition: 0, lease: lease, maximum: 10).due
    }

    @Test(arguments: [
        (GenerationEvent.finished(.stop, .none), "response.completed"), (.finished(.toolCalls, .none), "response.completed"),
        (.finished(.length, .none), "response.incomplete"), (.finished(.contentFilter, .none), "response.incomplete"),
        (.failed(Failure(.upstreamError, "x"), .none), "response.failed"),
        (.interrupted(Interruption(reason: "length", phase: .streaming, usage: .none)), "response.cancelled"),
    ]) func `the end of a background response has a webhook`(event: GenerationEvent, type: String) async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            try await store(fixture, job.id)
            let claim = try await fixture.running(job)
            #expect(try await fixture.consumer.partitionsWithWebhooks().isEmpty)
            _ = try await fixture.finish(claim, event, at: 1)
            #expect(try await fixture.consumer.partitionsWithWebhooks() == [0])
            let due = try await take(fixture)
            #expect(due.map(\.type) == [type] && due.map(\.job) == [job.id] && due.map(\.owner) == ["tenant-a"] && due[0].attempt == 1)
            for key in ["{sluice.0}:webhooks", "{sluice.0}:webhook:\(job.id)"] {
                #expect((80_000...90_000).contains(try await fixture.redis.command("TTL", key).integer ?? 0), "\(key)")
            }
        }
    }

    @Test func `other jobs have none, and one that is interrupted in the queue has one`() async throws {
        try await QueueFixture.run { fixture in
            let (plain, foreground, queued) = (QueueFixture.job("p0-a"), QueueFixture.job("p0-b"), QueueFixture.job("p0-c"))
            try await store(fixture, foreground.id, isBackground: false)
            try await store(fixture, queued.id)
            for job in [plain, foreground] {
                _ = try await fixture.finish(try await fixture.running(job), .finished(.stop, .none), at: 1)
            }
            #expect(try await take(fixture).isEmpty)
            #expect(try await fixture.queue.submit(queued, options: SubmitOptions()) == .accepted)
            _ = try await fixture.queue.interrupt(queued.id, reason: "USER_STOP", owner: "tenant-a")
            #expect(try await take(fixture).map(\.type) == ["response.cancelled"])
        }
    }

    @Test func `a webhook is tried again until it is delivered, also when its worker dies`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            try await store(fixture, job.id)
            _ = try await fixture.finish(try await fixture.running(job), .finished(.stop, .none), at: 1)
            let first = try #require(try await take(fixture, lease: .zero).first)
            // The worker died; another one takes it, and the first one's late result changes nothing.
            let second = try #require(try await take(fixture).first)
            #expect(second.attempt == 2)
            try await fixture.consumer.settle(first, .delivered)
            #expect(try await take(fixture).isEmpty, "it is leased")
            try await fixture.consumer.settle(second, .failed("the receiver answered 500", after: .zero))
            var webhooks = try await fixture.queue.snapshot().webhooks
            #expect(webhooks.waiting == 1 && webhooks.failing == 1 && webhooks.dead == 0)
            #expect(webhooks.lastError?.text == "the receiver answered 500")
            let third = try #require(try await take(fixture).first)
            try await fixture.consumer.settle(third, .dead("the receiver answered 500"))
            webhooks = try await fixture.queue.snapshot().webhooks
            #expect(webhooks.waiting == 0 && webhooks.failing == 0 && webhooks.dead == 1)
            #expect(try await fixture.redis.command("EXISTS", "{sluice.0}:webhook:\(job.id)").integer == 0)
        }
    }

    @Test func `webhooks beyond the maximum of a partition are counted, once`() async throws {
        try await QueueFixture.run { fixture in
            let fill = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], 0, 'p0-x' .. i) end"
            try await fixture.redis.command("EVAL", fill, "1", "{sluice.0}:webhooks")
            for name in ["p0-a", "p0-b"] {
                let job = QueueFixture.job(name)
                try await store(fixture, job.id)
                #expect(try await fixture.finish(try await fixture.running(job), .finished(.stop, .none), at: 1) == .integer(1))
            }
            #expect(try await fixture.redis.command("ZCARD", "{sluice.0}:webhooks") == .integer(100_000))
            #expect((80_000...90_000).contains(try await fixture.redis.command("TTL", "{sluice.0}:webhooks-dropped").integer ?? 0))
            for dropped in [2, 0] { #expect(try await fixture.consumer.takeDroppedWebhooks(partition: 0) == dropped) }
            try await fixture.redis.command("HSET", "{sluice.0}:webhooks-dropped", "x", "y")
            #expect(try await fixture.consumer.takeDroppedWebhooks(partition: 0) == 0, "another program's key")
        }
    }

    @Test func `an owner has at most its share, however many are due before those of others`() async throws {
        try await QueueFixture.run { fixture in
            func add(_ id: String, _ owner: String, at milliseconds: Int) async throws {
                _ = try await fixture.redis.command("ZADD", "{sluice.0}:webhooks", "\(milliseconds)", id)
                _ = try await fixture.redis.command(
                    "HSET", "{sluice.0}:webhook:\(id)", "type", "response.completed", "owner", owner, "created", "1", "attempts", "0")
            }
            for number in 0..<1_100 { try await add("p0-slow\(number)", "slow", at: number) }
            try await add("p0-other", "other", at: 2_000)
            let first = try await fixture.consumer.takeWebhooks(partition: 0, lease: .seconds(60), maximum: 10, share: 4)
            #expect(first.due.map(\.owner) == Array(repeating: "slow", count: 4))
            // 1,096 are left before the other owner's, and a call looks at 500.
            var skipped = first.skipped
            var calls = 0
            var found: [DueWebhook] = []
            while found.isEmpty, calls < 5 {
                calls += 1
                (found, skipped) = try await fixture.consumer.takeWebhooks(
                    partition: 0, lease: .seconds(60), maximum: 10, share: 4, running: ["slow": 4], skipping: skipped)
            }
            #expect(found.map(\.job.rawValue) == ["p0-other"] && calls == 2 && skipped == 0)
            // The slow owner's receiver has answered two.
            let next = try await fixture.consumer.takeWebhooks(
                partition: 0, lease: .seconds(60), maximum: 10, share: 4, running: ["slow": 2])
            #expect(next.due.map(\.job.rawValue) == ["p0-slow4", "p0-slow5"])
            let none = try await fixture.consumer.takeWebhooks(partition: 0, lease: .seconds(60), maximum: 1, share: 4)
            #expect(none.due.map(\.job.rawValue) == ["p0-slow6"] && none.skipped == 0, "the maximum ends the look")
        }
    }

    @Test func `a delivered webhook leaves nothing behind`() async throws {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            try await store(fixture, job.id)
            _ = try await fixture.finish(try await fixture.running(job), .finished(.stop, .none), at: 1)
            let due = try #require(try await take(fixture).first)
            try await fixture.consumer.settle(due, .delivered)
            #expect(try await fixture.queue.snapshot().webhooks == DeploymentSnapshot.Webhooks())
            #expect(try await fixture.redis.command("EXISTS", "{sluice.0}:webhook:\(job.id)", "{sluice.0}:webhooks").integer == 0)
        }
    }
}
