import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// What tenants have used, and their daily limit.
struct UsageTests {
    private static func end(_ claim: Claim, _ event: GenerationEvent, usage: Usage, _ fixture: QueueFixture) async throws {
        var pipeline = RedisPipeline()
        let id = EventID(attempt: claim.attempt, sequence: 1)
        let ending = OutputCommands.Ending(
            event: LoggedEvent(id: id, event: event), previous: EventID(attempt: claim.attempt, sequence: 0),
            progress: JobProgress(usage: usage))
        OutputCommands(claim.job.id, entry: claim.entry, keys: fixture.keys).append(
            ending, entry: claim.entry, settings: fixture.consumer.settings, loaded: false, to: &pipeline)
        #expect(try await fixture.consumer.redis.send(pipeline)[0] == .integer(1))
    }

    @Test func `a spoilt sum of tokens does not prevent the end of jobs`() async throws {
        try await QueueFixture.run { fixture in
            let used = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
            let key = fixture.keys.usage(day: try await fixture.queue.today(), partition: 0)
            for (number, spoil) in [["HSET", key, "tenant-a", "many"], ["SET", key, "text"], []].enumerated() {
                if !spoil.isEmpty {
                    try await fixture.redis.command("DEL", key)
                    try await fixture.redis.send(spoil)
                }
                let claim = try await fixture.running(QueueFixture.job("p0-\(number)"))
                try await Self.end(claim, .finished(.stop, used), usage: used, fixture)
                #expect(try await fixture.queue.record(claim.job.id)?.state == .finished)
            }
            // The jobs after are counted.
            let sum = try await fixture.redis.command("HGET", key, "tenant-a").string
            #expect(sum == "3")
        }
    }

    @Test func `usage is counted by tenant, day and model, exact and estimated apart, once per job`() async throws {
        try await QueueFixture.run { fixture in
            let today = try await fixture.queue.today()
            let exact = Usage(promptTokens: 10, completionTokens: 30, estimated: false)
            let finished = try await fixture.running(QueueFixture.job("p0-1"))
            try await Self.end(finished, .finished(.stop, exact), usage: exact, fixture)
            #expect(try await fixture.finish(finished, .finished(.stop, .none), at: 1) == .integer(0))
            var estimated = Usage(promptTokens: 5, completionTokens: 7, estimated: true)
            let stopped = try await fixture.running(QueueFixture.job("p0-2"))
            estimated.billing = .estimated
            try await Self.end(
                stopped, .interrupted(Interruption(reason: "R", phase: .streaming, usage: estimated, savedTokens: 93)), usage: estimated,
                fixture)
            _ = try await fixture.queue.submit(QueueFixture.job("p0-3", owner: "tenant-b"), options: SubmitOptions())
            _ = try await fixture.queue.interrupt(JobID("p0-3")!, reason: "R", owner: nil)

            let rows = try await fixture.queue.usage(of: today - 1...today, tenant: nil)
            var first = UsageRow(tenant: "tenant-a", day: today, model: "m")
            first.add("2 1 10 30 5 7 93")
            var second = UsageRow(tenant: "tenant-b", day: today, model: "m")
            second.add("1 1 0 0 0 0 0")
            #expect(rows == [first, second])
            #expect(try await fixture.queue.usage(of: today...today, tenant: "tenant-b") == [second])
            #expect(try await fixture.queue.record(stopped.job.id)?.usage?.billing == .estimated)
            #expect(try await fixture.queue.record(JobID("p0-3")!)?.usage?.billing == .exact)
            #expect(try await fixture.redis.command("TTL", fixture.keys.usage(day: today, partition: 0)).integer ?? 0 > 35 * 86_400)
        }
    }

    @Test func `the tenants with the most tokens of two days, over all models and partitions`() async throws {
        var settings = QueueSettings()
        settings.keys = Keys(partitions: 2)
        try await QueueFixture.run(settings: settings) { fixture in
            let today = try await fixture.queue.today()
            func set(_ tenant: String, _ day: Int, _ partition: Int, _ tokens: Int, _ models: [String: String]) async throws {
                try await fixture.redis.command("HSET", fixture.keys.usage(day: day, partition: partition), tenant, "\(tokens)")
                for (model, numbers) in models {
                    try await fixture.redis.command("HSET", fixture.keys.usage(day: day, of: tenant, partition: partition), model, numbers)
                }
            }
            try await set("b", today, 0, 30, ["m": "1 0 10 20 0 0 0"])
            try await set("b", today, 1, 40, ["m": "2 1 0 0 15 25 7"])
            try await set("b", today - 1, 0, 5, ["n": "1 0 1 4 0 0 0"])
            try await set("a", today - 1, 1, 75, ["m": "1 0 30 40 0 0 0", "n": "1 0 2 3 0 0 0"])
            try await set("c", today, 0, 9, [:])
            try await set("d", today, 0, 8, [:])
            func row(_ tenant: String, _ day: Int, _ numbers: String) -> UsageRow {
                var row = UsageRow(tenant: tenant, day: day, model: "")
                row.add(numbers)
                return row
            }
            let found = try await fixture.queue.largestUsage(of: today - 1...today, maximum: 3)
            #expect(found.further == 1)
            #expect(
                found.tenants == [
                    [row("a", today - 1, "2 0 32 43 0 0 0"), row("a", today, "")],
                    [row("b", today - 1, "1 0 1 4 0 0 0"), row("b", today, "3 1 10 20 15 25 7")],
                    [row("c", today - 1, ""), row("c", today, "")],
                ])
        }
    }

    @Test func `further models of a tenant's day are counted together`() async throws {
        try await QueueFixture.run { fixture in
            let today = try await fixture.queue.today()
            let key = fixture.keys.usage(day: today, of: "tenant-a", partition: 0)
            for number in 0..<200 { try await fixture.redis.command("HSET", key, "model-\(number)", "1 0 1 1 0 0 0") }
            let claim = try await fixture.running(QueueFixture.job("p0-1"))
            try await Self.end(claim, .finished(.stop, .none), usage: .none, fixture)
            #expect(try await fixture.redis.command("HGET", key, "").string == "1 0 0 0 0 0 0")
        }
    }

    /// A tenant that interrupts every job reaches its limit, too.
    @Test func `a tenant whose tokens of the day are used up is refused, by hand too`() async throws {
        var settings = QueueSettings()
        settings.keys = Keys(partitions: 2)
        try await QueueFixture.run(settings: settings) { fixture in
            var limits = TenantLimits()
            limits.dailyTokens = 100
            try await fixture.queue.publish(["default": limits, "rich": TenantLimits()])
            let claim = try await fixture.running(QueueFixture.job("p0-1"))
            #expect(claim.tenant == limits)
            var used = Usage(promptTokens: 50, completionTokens: 60, estimated: true)
            used.billing = .estimated
            try await Self.end(claim, .interrupted(Interruption(reason: "R", phase: .streaming, usage: used)), usage: used, fixture)
            // In another partition than the one that knows, after the first submission there.
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-2"), options: SubmitOptions()) == .quotaExhausted)
            #expect(try await fixture.queue.submit(QueueFixture.job("p1-2"), options: SubmitOptions()) == .quotaExhausted)
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-3", owner: "rich"), options: SubmitOptions()) == .accepted)
            try await fixture.redis.command("XADD", "{sluice.0}:queue:interactive", "*", "job", QueueFixture.job("p0-4").json.text)
            let entry = try #require(
                try await fixture.consumer.take(partition: 0, classes: [.interactive], count: 1).entries.first)
            #expect(
                try await fixture.consumer.claim(QueueFixture.job("p0-4"), entry: entry, leaseExpired: false) == .ended(.quotaExhausted))
        }
    }

    @Test func `the settings of tenants replace earlier ones and expire`() async throws {
        try await QueueFixture.run { fixture in
            try await fixture.queue.publish(["a": TenantLimits(), "b": TenantLimits()])
            var heavy = TenantLimits()
            heavy.weight = 3
            try await fixture.queue.publish(["a": heavy])
            let key = fixture.keys.tenants(partition: 0)
            #expect(try await fixture.redis.command("HGET", key, "a").string == "3.0 0 0 0 0")
            #expect(try await fixture.redis.command("HEXISTS", key, "b") == .integer(0))
            #expect(try await fixture.redis.command("TTL", key).integer ?? 0 > 200)
        }
    }

    @Test func `days are written and read as dates`() {
        for (day, text) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_785, "2026-11-28")] {
            #expect(UsageDay.text(day) == text && UsageDay.parse(text) == day)
        }
        for text in ["", "2026-13-01", "2026-02-30", "1969-12-31", "2026-1-1", "2026-11-28x", "99999999999-01-01", "-026-01-01"] {
            #expect(UsageDay.parse(text) == nil, "\(text)")
        }
    }
}
