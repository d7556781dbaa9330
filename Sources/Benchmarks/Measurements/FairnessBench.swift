import Contract
import JSONCodec
import NIOCore
import OperatorTools
import RedisClient
import Support

/// `sluice bench fairness`: how long a tenant's single job waits behind another tenant's backlog, and how evenly backlogged tenants are served.
package struct FairnessBench: Sendable {
    /// Completion tokens of the jobs of each tenant in the second part.
    private static let sizes = [100, 200, 400, 100, 200, 400, 100, 200, 400, 100]
    private static let gap = 5.0

    private let deployment: BenchDeployment
    private let backlog: Int
    private let probes: Int
    private let seconds: Double

    /// - Parameters:
    ///   - backlog: waiting jobs of the flooding tenant.
    ///   - probes: single jobs of the other tenant.
    ///   - seconds: duration of the second part.
    package init(deployment: BenchDeployment, backlog: Int, probes: Int, seconds: Double) {
        self.deployment = deployment
        self.backlog = backlog
        self.probes = probes
        self.seconds = seconds
    }

    private var redis: BenchRedis { deployment.redis }

    /// Measures and returns the report.
    /// - Throws: `CommandFailure` when a job does not start in time.
    package func run() async throws -> BenchReport {
        var report = BenchReport("fairness")
        report.set("backlog", .integer(backlog))
        let alone = try await waits()
        Progress.say("submitting \(backlog) jobs of one tenant")
        let flood = redis.newJobs(backlog)
        let behind = try await redis.ending(flood) {
            try await submit(flood, owner: "bench-flood", tokens: 100)
            return try await waits()
        }
        report.add("wait_alone_p50", "a single job alone: submitted → started, median", Double(alone.median) / 1e6, "ms")
        report.add("wait_p50", "a single job behind the backlog, median", Double(behind.median) / 1e6, "ms")
        report.add("wait_max", "a single job behind the backlog, longest", Double(behind.max) / 1e6, "ms")
        let shares = try await shares()
        let (sum, squares) = shares.reduce((0.0, 0.0)) { ($0.0 + $1, $0.1 + $1 * $1) }
        report.add(
            "jain", "Jain's index by tokens over \(shares.count) backlogged tenants",
            squares > 0 ? sum * sum / (Double(shares.count) * squares) : 0, "")
        report.add("tokens_least", "tokens of the tenant served least", shares.min() ?? 0, "")
        report.add("tokens_most", "tokens of the tenant served most", shares.max() ?? 0, "")
        return report
    }

    /// Times from the submission of single jobs to their `started`, in ns.
    private func waits() async throws -> (median: UInt64, max: UInt64) {
        var times: [UInt64] = []
        for _ in 0..<probes {
            let job = redis.newJobs(1)
            let begun = MonotonicClock.nanoseconds
            try await submit(job, owner: "bench-single", tokens: 2)
            let record = RedisArgument.string(redis.keys.record(job[0]))
            let deadline = ContinuousClock.now + .seconds(60)
            while try await redis.client.send("HGET", record, "claimed_ms").isNull {
                guard ContinuousClock.now < deadline else { throw CommandFailure(.failed, "sluice: a job did not start within 60 s") }
                try await Task.sleep(for: .milliseconds(1))
            }
            times.append(MonotonicClock.nanoseconds - begun)
        }
        times.sort()
        return (times.isEmpty ? 0 : times[times.count / 2], times.last ?? 0)
    }

    /// Tokens with which each of the backlogged tenants was served.
    private func shares() async throws -> [Double] {
        Progress.say("\(Self.sizes.count) tenants with jobs of 100 to 400 tokens, for \(BenchReport.rounded(seconds)) s")
        var jobs: [[JobID]] = []
        let before = try await usage()
        for _ in Self.sizes { jobs.append(redis.newJobs(max(50, backlog / Self.sizes.count))) }
        return try await redis.ending(jobs.flatMap { $0 }) {
            for (tenant, tokens) in Self.sizes.enumerated() { try await submit(jobs[tenant], owner: Self.owner(tenant), tokens: tokens) }
            try await Task.sleep(for: .seconds(seconds))
            let after = try await usage()
            return Self.sizes.indices.map { Double((after[Self.owner($0)] ?? 0) - (before[Self.owner($0)] ?? 0)) }
        }
    }

    private static func owner(_ tenant: Int) -> String { "bench-\(tenant)" }

    /// Tokens of each tenant today, of jobs that have ended.
    private func usage() async throws -> [String: Int] {
        var usage: [String: Int] = [:]
        for partition in 0..<redis.keys.partitions {
            let reply = try await redis.client.send(
                "HGETALL", .string(redis.keys.usage(day: WallClock.milliseconds / 86_400_000, partition: partition)))
            for (owner, tokens) in reply.fields { usage[owner, default: 0] += Int(tokens) ?? 0 }
        }
        return usage
    }

    private func submit(_ jobs: [JobID], owner: String, tokens: Int) async throws {
        let model = SimulatedModel(tokens: tokens, gap: Self.gap)
        for start in stride(from: 0, to: jobs.count, by: 500) {
            var pipeline = RedisPipeline()
            for id in jobs[start..<min(start + 500, jobs.count)] {
                var request = model.request()
                request["max_tokens"] = .integer(tokens)
                let job = Job(id: id, priority: .standard, request: request, owner: owner)
                pipeline.append(
                    "XADD", .string(redis.keys.queue(.standard, partition: redis.keys.partition(of: id.rawValue))), "*", "job",
                    .bytes(job.json.bytes))
            }
            for reply in try await redis.client.send(pipeline) { _ = try reply.orThrow() }
        }
    }
}
