import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Limits that hold over all workers.
struct SharedLimitTests {
    private static func limit(_ concurrency: Int? = nil, requests: Int? = nil, tokens: Int? = nil) -> SharedLimit {
        SharedLimit(.upstream, "u", concurrency: concurrency, requestsPerMinute: requests, tokensPerMinute: tokens)
    }

    @Test func `a concurrency limit admits in order of arrival over three workers`() async throws {
        try await QueueFixture.run { fixture in
            let workers = (0..<3).map { fixture.consumer("w\($0)", token: "t\($0)") }
            var admitted: [Bool] = []
            for number in 0..<6 {
                admitted += try await workers[number % 3].acquire(Self.limit(2), holder: "h\(number)", tokens: 1).areAdmitted
            }
            #expect(admitted == [true, true, false, false, false, false])
            // A repetition changes nothing, and a released place goes to the one that waits longest.
            #expect(try await workers[0].acquire(Self.limit(2), holder: "h0", tokens: 1).areAdmitted == [true])
            _ = try await workers[2].release(Self.limit(2), holder: "h3", used: 0)
            for (released, next) in [("h1", "h2"), ("h0", "h4"), ("h2", "h5")] {
                _ = try await workers[0].release(Self.limit(2), holder: released, used: nil)
                #expect(try await workers[1].acquire(Self.limit(2), holder: next, tokens: 1).areAdmitted == [true])
                #expect(try await fixture.redis.command("ZCARD", "{sluice}:limit:upstream:u:running") == .integer(2))
            }
            for holder in ["h4", "h5"] { _ = try await workers[0].release(Self.limit(2), holder: holder, used: nil) }
            #expect(try await fixture.redis.command("HLEN", "{sluice}:limit:upstream:u:holders") == .integer(0))
        }
    }

    @Test func `a holder that was admitted is announced to its worker only`() async throws {
        try await QueueFixture.run { fixture in
            let other = fixture.consumer("w2", token: "t2")
            _ = try await fixture.consumer.acquire(Self.limit(1), holder: "a", tokens: 1)
            _ = try await other.acquire(Self.limit(1), holder: "b", tokens: 1)
            try await fixture.redis.command("CONFIG", "RESETSTAT")
            _ = try await fixture.consumer.release(Self.limit(1), holder: "a", used: nil)
            #expect(try await LeaseIndexTests.calls(fixture)["publish"] == 1)
        }
    }

    @Test func `places of a killed worker are given back with its leases`() async throws {
        var settings = QueueSettings()
        settings.lease = .seconds(3)
        try await QueueFixture.run(settings: settings) { fixture in
            let killed = fixture.consumer("w2", token: "t2")
            let limit = Self.limit(1, tokens: 1_000)
            #expect(try await killed.acquire(limit, holder: "lost", tokens: 900).areAdmitted == [true])
            _ = try await killed.acquire(limit, holder: "waits", tokens: 900)
            _ = try await until("the place") {
                try await fixture.consumer.acquire(limit, holder: "next", tokens: 900).areAdmitted == [true] ? true : nil
            }
            // One that is renewed keeps its place.
            let renewed = try await fixture.consumer.renew(limit, holders: [LimitHolder(id: "next", isAdmitted: true, tokens: 900)])
            #expect(renewed.areAdmitted == [true])
        }
    }

    @Test func `a job larger than the limit reserves no more than all of it`() async throws {
        try await QueueFixture.run { fixture in
            let limit = Self.limit(tokens: 6_000)
            #expect(try await fixture.consumer.acquire(limit, holder: "a", tokens: 1_000_000_000).areAdmitted == [true])
            let waiting = try await fixture.consumer.acquire(limit, holder: "b", tokens: 3_000)
            #expect(waiting.areAdmitted == [false])
            let wait = try #require(waiting.wait)
            #expect(wait <= .seconds(30))
        }
    }

    @Test func `what a job reserved and did not use is given back`() async throws {
        try await QueueFixture.run { fixture in
            let limit = Self.limit(tokens: 6_000)
            #expect(try await fixture.consumer.acquire(limit, holder: "a", tokens: 4_000).areAdmitted == [true])
            let waiting = try await fixture.consumer.acquire(limit, holder: "b", tokens: 4_000)
            #expect(waiting.areAdmitted == [false])
            let wait = try #require(waiting.wait)
            #expect(wait > .seconds(15) && wait <= .seconds(20))
            // Interrupted after 1,000 tokens.
            _ = try await fixture.consumer.release(limit, holder: "a", used: 1_000)
            #expect(try await fixture.consumer.acquire(limit, holder: "b", tokens: 4_000).areAdmitted == [true])
            // One that used more than it reserved leaves a debt; a larger job than the limit waits for all of it.
            _ = try await fixture.consumer.release(limit, holder: "b", used: 10_000)
            let large = try await fixture.consumer.acquire(limit, holder: "c", tokens: 1_000_000)
            #expect(large.areAdmitted == [false] && large.wait ?? .zero > .seconds(80))
        }
    }

    @Test func `requests per minute begin with a full minute`() async throws {
        try await QueueFixture.run { fixture in
            // The next one is admitted 20 s after the first. A busy machine may need longer for the calls.
            try await until("five calls within 10 s") {
                try await fixture.redis.command("FLUSHALL")
                let begun = ContinuousClock.now
                var admitted: [Bool] = []
                var wait: Duration?
                for number in 0..<5 {
                    let state = try await fixture.consumer.acquire(Self.limit(requests: 3), holder: "\(number)", tokens: 1)
                    admitted += state.areAdmitted
                    wait = state.wait
                }
                guard ContinuousClock.now - begun < .seconds(10) else { return false }
                #expect(admitted == [true, true, true, false, false])
                #expect(wait ?? .zero > .seconds(9) && wait ?? .zero <= .seconds(20))
                return true
            }
        }
    }

    @Test(arguments: ["nan", "-nan", "-1e300", "-inf", "x"]) func `a rate that is no number is a full one`(_ value: String) async throws {
        try await QueueFixture.run { fixture in
            try await fixture.redis.command("HSET", "{sluice}:limit:upstream:u:rate", "requests", value, "tokens", value, "at", value)
            let limit = Self.limit(requests: 10, tokens: 1_000)
            #expect(try await fixture.consumer.acquire(limit, holder: "a", tokens: 100).areAdmitted == [true])
        }
    }

    @Test func `Redis that has lost the holders gets them back by their renewal`() async throws {
        try await QueueFixture.run { fixture in
            _ = try await fixture.consumer.acquire(Self.limit(1), holder: "a", tokens: 1)
            _ = try await fixture.consumer.acquire(Self.limit(1), holder: "b", tokens: 1)
            try await fixture.redis.command("FLUSHALL")
            let holders = [LimitHolder(id: "a", isAdmitted: true, tokens: 1), LimitHolder(id: "b", isAdmitted: false, tokens: 1)]
            #expect(try await fixture.consumer.renew(Self.limit(1), holders: holders).areAdmitted == [true, false])
        }
    }

    @Test func `the settings of tenants survive their way through Redis`() {
        var limits = TenantLimits()
        limits.weight = 2.5
        limits.concurrency = 4
        limits.dailyTokens = 1_000_000
        #expect(TenantLimits(limits.text) == limits)
        #expect(TenantLimits("") == nil && TenantLimits("0 1") == nil && TenantLimits("nan") == nil)
        #expect(TenantLimits("3 0 7")?.requestsPerMinute == 7 && TenantLimits("3 0 7")?.concurrency == nil)
    }
}
