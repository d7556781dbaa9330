import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Service of waiting jobs by tenant.
struct FairnessTests {
    /// No lease expires during a test.
    private let settings: QueueSettings = {
        var settings = QueueSettings()
        settings.lease = .seconds(600)
        return settings
    }()

    /// Adds jobs by hand, in one round trip.
    static func add(
        _ count: Int, of owner: String, tokens: Int = 500, to priority: JobClass = .standard, _ fixture: QueueFixture
    ) async throws {
        var pipeline = RedisPipeline()
        for number in 0..<count {
            let job =
                #"{"id":"p0-\#(owner)-\#(number)","owner":"\#(owner)","request":{"messages":[{"role":"user","content":"\"max_tokens\":9"}],"max_tokens":\#(tokens)}}"#
            pipeline.append("XADD", .string(fixture.keys.queue(priority, partition: 0)), "*", "job", .string(job))
        }
        for reply in try await fixture.consumer.redis.send(pipeline) { _ = try reply.orThrow() }
    }

    /// Takes entries as a worker does: repeats incomplete takes.
    static func take(_ count: Int, _ consumer: JobConsumer, classes: [JobClass] = JobClass.allCases) async throws -> [Job] {
        var taken = JobConsumer.Taken()
        repeat { taken = try await consumer.take(partition: 0, classes: classes, count: count) } while taken.isEmpty && taken.isIncomplete
        return try (taken.expired + taken.entries).map { try Job(parsing: $0.job ?? []) }
    }

    @Test func `a tenant's single job is served within two claims behind a flood, and priority holds across tenants`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            try await Self.add(5_000, of: "a", fixture)
            #expect(try await Self.take(4, fixture.consumer).map(\.owner) == ["a", "a", "a", "a"])
            try await Self.add(1, of: "b", fixture)
            let next = try await Self.take(1, fixture.consumer) + Self.take(1, fixture.consumer)
            #expect(next.contains { $0.owner == "b" })
            // Submitted by a gateway.
            #expect(try await fixture.queue.submit(QueueFixture.job("p0-c", owner: "c"), options: SubmitOptions()) == .accepted)
            let later = try await Self.take(1, fixture.consumer) + Self.take(1, fixture.consumer)
            #expect(later.contains { $0.owner == "c" })
            try await Self.add(2, of: "a", to: .interactive, fixture)
            try await Self.add(1, of: "d", fixture)
            #expect(
                try await Self.take(2, fixture.consumer).map(\.priority) == [.standard, .standard], "the class of the JSON is not used")
            let depth = try await fixture.consumer.depth()
            #expect(depth.classes[.standard]?.lag == 4_995)
            #expect(depth.classes[.interactive]?.lag == 0 && depth.classes[.interactive]?.pending == 2)
        }
    }

    @Test func `tenants of mixed sizes receive equal shares by tokens, in order and without loss`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            let sizes = (0..<10).map { 100 << ($0 % 5) }
            for (tenant, tokens) in sizes.enumerated() { try await Self.add(60, of: "t\(tenant)", tokens: tokens, fixture) }
            var served: [String: [Job]] = [:]
            var tokens: [String: Int] = [:]
            // While every tenant has waiting jobs.
            while served.values.allSatisfy({ $0.count < 60 }) {
                for job in try await Self.take(3, fixture.consumer) {
                    served[job.owner ?? "", default: []].append(job)
                    tokens[job.owner ?? "", default: 0] += job.maximumTokens ?? 0
                }
            }
            let sum = tokens.values.reduce(0.0) { $0 + Double($1) }
            let squares = tokens.values.reduce(0.0) { $0 + Double($1) * Double($1) }
            let index = sum * sum / (10 * squares)
            #expect(tokens.count == 10 && index >= 0.95, "Jain's index \(index), tokens \(tokens)")
            while case let jobs = try await Self.take(64, fixture.consumer), !jobs.isEmpty {
                for job in jobs { served[job.owner ?? "", default: []].append(job) }
            }
            for (owner, jobs) in served { #expect(jobs.map(\.id.rawValue) == (0..<60).map { "p0-\(owner)-\($0)" }) }
            // Nothing is left of the sorting.
            #expect(try await fixture.redis.command("KEYS", "{sluice.0}:turn*").array?.isEmpty == true)
            #expect(try await fixture.consumer.depth().classes[.standard]?.pending == 600)
        }
    }

    @Test func `a weight multiplies a tenant's share`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            try await fixture.redis.command("HSET", "{sluice.0}:tenants", "heavy", "3")
            for owner in ["heavy", "light"] { try await Self.add(80, of: owner, fixture) }
            var served: [String: Int] = [:]
            for _ in 0..<80 { for job in try await Self.take(1, fixture.consumer) { served[job.owner ?? "", default: 0] += 1 } }
            #expect((58...62).contains(served["heavy"] ?? 0), "\(served)")
        }
    }

    @Test func `a tenant gains nothing by waiting with one job at a time`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            try await Self.add(100, of: "a", fixture)
            var served: [String: Int] = [:]
            for number in 0..<40 {
                // Always one waiting job, added when the last one was served.
                if served["b", default: 0] == number - served["a", default: 0] { try await Self.add(1, of: "b", fixture) }
                for job in try await Self.take(1, fixture.consumer) { served[job.owner ?? "", default: 0] += 1 }
            }
            #expect((18...22).contains(served["b"] ?? 0), "\(served)")
        }
    }

    @Test func `an interrupted waiting job leaves the turns`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            for number in 0..<4 {
                _ = try await fixture.queue.submit(QueueFixture.job("p0-\(number)"), options: SubmitOptions())
            }
            #expect(try await Self.take(1, fixture.consumer).map(\.id.rawValue) == ["p0-0"])
            #expect(try await fixture.redis.command("ZCARD", "{sluice.0}:turn:standard:tenant-a") == .integer(3))
            for number in 1..<4 { _ = try await fixture.queue.interrupt(JobID("p0-\(number)")!, reason: "USER_STOP", owner: nil) }
            #expect(try await fixture.redis.command("KEYS", "{sluice.0}:turn*").array?.isEmpty == true)
            #expect(try await Self.take(1, fixture.consumer).isEmpty)
            #expect(try await fixture.redis.command("XLEN", fixture.keys.queue(.standard, partition: 0)) == .integer(1))
        }
    }

    @Test func `entries trimmed by an operator are skipped`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            try await Self.add(700, of: "a", fixture)
            _ = try await Self.take(1, fixture.consumer)
            try await fixture.redis.command("XTRIM", fixture.keys.queue(.standard, partition: 0), "MAXLEN", "0")
            try await Self.add(3, of: "b", fixture)
            var rest: [Job] = []
            for _ in 0..<6 { rest += try await Self.take(2, fixture.consumer) }
            #expect(rest.map(\.owner) == ["b", "b", "b"])
            #expect(try await fixture.redis.command("KEYS", "{sluice.0}:turn*").array?.isEmpty == true)
        }
    }

    @Test func `workers of an earlier version take sorted entries, which are not served twice`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            try await Self.add(5, of: "a", fixture)
            #expect(try await Self.take(1, fixture.consumer).count == 1)
            let queue = fixture.keys.queue(.standard, partition: 0)
            let earlier = try await fixture.redis.command("XAUTOCLAIM", queue, Keys.group, "earlier", "15000", "0-0", "COUNT", "2")
            #expect(earlier.array?[1].array?.count == 2)
            #expect(try await Self.take(9, fixture.consumer).map(\.id.rawValue) == ["p0-a-3", "p0-a-4"])
        }
    }

    @Test func `lost keys of the turns are created again by the walk`() async throws {
        var settings = QueueSettings()
        settings.lease = .milliseconds(1)
        try await QueueFixture.run(settings: settings) { fixture in
            try await Self.add(5, of: "a", fixture)
            #expect(try await Self.take(1, fixture.consumer).count == 1)
            for key in ["turns:standard", "turn:standard:a"] { try await fixture.redis.command("DEL", "{sluice.0}:" + key) }
            try await fixture.redis.command("SET", "{sluice.0}:turns:standard", "x")
            let walk = try await until("a walk") {
                _ = try await Self.take(1, fixture.consumer, classes: [.standard])
                let walk = try await fixture.consumer.walkPending()
                return walk?.sorted == 0 ? nil : walk
            }
            #expect(walk.sorted == 4)
            var served: Set<String> = []
            _ = try await until("the jobs") {
                served.formUnion(try await Self.take(9, fixture.consumer).map(\.id.rawValue))
                return served.count == 5 ? true : nil
            }
        }
    }

    @Test func `sorted entries wake workers that wait for jobs`() async throws {
        try await QueueFixture.run(settings: settings) { fixture in
            func published() async throws -> Int {
                let text = try await fixture.redis.command("INFO", "commandstats").string ?? ""
                let line = text.split(separator: "\r\n").first { $0.hasPrefix("cmdstat_publish:calls=") }
                return line.flatMap { Int($0.dropFirst("cmdstat_publish:calls=".count).prefix { $0.isNumber }) } ?? 0
            }
            try await Self.add(3, of: "a", fixture)
            #expect(try await Self.take(1, fixture.consumer).count == 1)
            #expect(try await published() == 0, "no worker waits")
            let idle = fixture.consumer("w2", token: "t2")
            #expect(try await Self.take(1, idle, classes: [.batch]).isEmpty)
            #expect(try await Self.take(1, fixture.consumer).count == 1)
            #expect(try await published() == 1)
            #expect(try await Self.take(9, idle).count == 1)
        }
    }
}
