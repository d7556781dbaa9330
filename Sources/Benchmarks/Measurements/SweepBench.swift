import Contract
import JSONCodec
import OperatorTools
import Support

/// `sluice bench sweep`: what a deployment costs in which nothing happens, with running jobs that produce nothing and waiting jobs whose
/// clients are connected. Renewals of leases, searches for lost workers and looks at silent jobs are all that is left.
package struct SweepBench: Sendable {
    private let deployment: BenchDeployment
    private let running: Int
    private let waiting: Int
    private let seconds: Double
    private let warmUp: Double

    /// - Parameters:
    ///   - running: fills all slots of the workers.
    ///   - warmUp: time for the intervals of looks at silent jobs to grow, in seconds.
    package init(deployment: BenchDeployment, running: Int, waiting: Int, seconds: Double, warmUp: Double) {
        self.deployment = deployment
        self.running = running
        self.waiting = waiting
        self.seconds = seconds
        self.warmUp = warmUp
    }

    /// Two tokens that are an hour apart, so that a running job is silent after its first one.
    private static let silent = SimulatedModel(tokens: 2, gap: 3_600_000)

    /// Measures and returns the report.
    /// - Throws: `CommandFailure` when a node does not answer or the jobs do not start in time.
    package func run() async throws -> BenchReport {
        let jobs = deployment.redis.newJobs(running)
        return try await deployment.redis.ending(jobs) { try await measure(jobs) }
    }

    private func measure(_ jobs: [JobID]) async throws -> BenchReport {
        let redis = deployment.redis
        let gap = Self.silent.gapNanoseconds
        let started = StreamReader(jobs: jobs.map(\.rawValue), gap: gap, eventLoop: redis.eventLoop)
        Progress.say("starting \(running) running and \(waiting) waiting jobs")
        try await redis.follow(jobs, as: started)
        try await redis.submit(jobs, model: Self.silent, over: Double(running) / 1_000)
        try await started.wait(for: "returned a token", seconds: 60, every: .milliseconds(50)) { $0.firstToken != nil }
        // The measuring client is no part of the deployment.
        redis.unfollow(jobs)
        let reader = StreamReader(jobs: (0..<waiting).map { "waiting-\($0)" }, gap: gap, eventLoop: redis.eventLoop)
        var sockets: [BenchSocket] = []
        for index in 0..<waiting {
            if index % BenchSocket.requestsEach == 0 {
                sockets.append(
                    try await BenchSocket.connect(
                        to: deployment.gateway, key: deployment.key, eventLoop: redis.eventLoop, reader: reader))
            }
            sockets[sockets.count - 1].ask(index, model: Self.silent)
        }
        Progress.say("at rest for \(BenchReport.rounded(warmUp)) s")
        try await Task.sleep(for: .seconds(warmUp))
        let (commandsBefore, first) = (try await redis.commandsProcessed(), deployment.readings())
        let start = MonotonicClock.nanoseconds
        Progress.say("measuring for \(BenchReport.rounded(seconds)) s")
        try await Task.sleep(for: .seconds(seconds))
        let (commands, last) = (try await redis.commandsProcessed() - commandsBefore, deployment.readings())
        let elapsed = Double(MonotonicClock.nanoseconds - start) / 1e9
        var report = BenchReport("sweep")
        report.set("running", .integer(running))
        report.set("waiting", .integer(waiting))
        report.set("seconds", .number(BenchReport.rounded(elapsed)))
        report.add("redis_commands_per_second", "Redis commands, those in scripts included", Double(commands) / elapsed, "/s")
        for reading in last where reading.name != "bench" {
            guard let old = first.first(where: { $0.pid == reading.pid }) else { continue }
            report.add("\(reading.name)_cpu_percent", "\(reading.name): CPU", (reading.cpu - old.cpu) / (elapsed * 10_000), "%")
        }
        report.add("requests_refused", "requests refused", Double(await reader.count { $0.hasFailed }), "")
        Progress.say("ending the jobs")
        for socket in sockets { socket.interruptAll() }
        try await reader.wait(for: "ended", seconds: 60, every: .milliseconds(50)) { $0.ended != nil || $0.hasFailed }
        for socket in sockets { await socket.close() }
        return report
    }
}
