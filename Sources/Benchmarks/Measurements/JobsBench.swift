import Contract
import Histogram
import JSONCodec
import NIOCore
import OperatorTools
import RedisClient
import Support

/// `sluice bench jobs`: the throughput of one-token jobs from submission to their last event.
package struct JobsBench: Sendable {
    private let deployment: BenchDeployment
    private let inFlight: Int
    private let seconds: Double
    private let warmUp: Double

    package init(deployment: BenchDeployment, inFlight: Int, seconds: Double, warmUp: Double) {
        self.deployment = deployment
        self.inFlight = inFlight
        self.seconds = seconds
        self.warmUp = warmUp
    }

    /// Measures and returns the report.
    /// - Throws: `CommandFailure` when a node does not answer or a stream does not end in time.
    package func run() async throws -> BenchReport {
        let driver = JobDriver(redis: deployment.redis, inFlight: inFlight)
        Progress.say("warming up with \(inFlight) jobs in flight")
        await driver.start()
        try await Task.sleep(for: .seconds(warmUp))
        let commandsBefore = try await deployment.redis.commandsProcessed()
        let before = await driver.startMeasuring()
        let (start, first) = (MonotonicClock.nanoseconds, deployment.readings())
        let whole = max(1, Int(seconds / 5))
        for part in 1...whole {
            try await Task.sleep(for: .seconds(seconds / Double(whole)))
            let rate = Double(await driver.ended - before) / (Double(MonotonicClock.nanoseconds - start) / 1e9)
            Progress.say(
                "\(BenchReport.rounded(seconds * Double(part) / Double(whole))) of \(BenchReport.rounded(seconds)) s, \(Int(rate)) jobs/s")
        }
        let (end, last) = (MonotonicClock.nanoseconds, deployment.readings())
        let jobs = await driver.ended - before
        let times = await driver.times
        let commands = try await deployment.redis.commandsProcessed() - commandsBefore
        let failed = await driver.failed
        await driver.stop()
        let deadline = ContinuousClock.now + .seconds(20)
        while await driver.running > 0 {
            guard ContinuousClock.now < deadline else { throw CommandFailure(.failed, "sluice: some jobs did not end within 20 s") }
            try await Task.sleep(for: .milliseconds(20))
        }
        let elapsed = Double(end - start) / 1e9
        var report = BenchReport("jobs")
        report.set("in_flight", .integer(inFlight))
        report.set("seconds", .number(BenchReport.rounded(elapsed)))
        report.add("jobs_per_second", "one-token jobs, end to end", Double(jobs) / elapsed, "/s")
        report.add("jobs_failed", "jobs that failed", Double(failed), "")
        report.add("redis_commands_per_job", "Redis commands per job", Double(commands) / Double(max(1, jobs)), "")
        for reading in last {
            guard let old = first.first(where: { $0.pid == reading.pid }) else { continue }
            let cpu = reading.cpu - old.cpu
            report.add("\(reading.name)_cpu_us_per_job", "\(reading.name): CPU per job", cpu / Double(max(1, jobs)), "µs")
            report.add("\(reading.name)_cpu_percent", "\(reading.name): CPU", cpu / (elapsed * 10_000), "%")
        }
        report.add("job", "submitted → last event", Times(times))
        return report
    }
}

/// Keeps a number of jobs running: when one ends, the next one is submitted. Isolated to the client's event loop; uses no task per job.
private actor JobDriver: PinnedActor {
    private static let model = SimulatedModel(tokens: 1, gap: 0)

    private nonisolated let redis: BenchRedis
    private let inFlight: Int
    private var isStopping = false
    private var isMeasuring = false
    private(set) var running = 0
    private(set) var ended = 0
    private(set) var failed = 0
    private(set) var times = Histogram<UInt64>(highestTrackableValue: 3_600_000_000_000, numberOfSignificantValueDigits: .three)

    nonisolated var executor: LoopExecutor { redis.client.executor }

    init(redis: BenchRedis, inFlight: Int) {
        self.redis = redis
        self.inFlight = inFlight
    }

    func start() { for _ in 0..<inFlight { next() } }
    func stop() { isStopping = true }
    func startMeasuring() -> Int {
        isMeasuring = true
        return ended
    }

    /// Subscribes to a new job's output channel; submits the job when the subscription is confirmed.
    private func next() {
        guard !isStopping, let job = redis.newJobs(1).first else { return }
        running += 1
        let channel = redis.keys.out(job)
        let watch = JobWatch()
        let bound = NIOLoopBound(watch, eventLoop: redis.eventLoop)
        redis.subscriber.subscribe(channel) { [self] event in
            switch event {
            case .subscribed: assumeIsolated { $0.submit(job, bound.value) }
            case .lost: break
            case .message(let message):
                let bytes = message.readableBytesUInt8Span
                let isLast = TokenScan.contains("\"usage\":", in: bytes)
                let isFailed = isLast && !TokenScan.contains("\"type\":\"finished\"", in: bytes)
                if isLast { assumeIsolated { $0.end(channel, bound.value, isFailed: isFailed) } }
            }
        }
    }

    private func submit(_ job: JobID, _ watch: JobWatch) {
        guard watch.submitted == 0 else { return }
        watch.submitted = MonotonicClock.nanoseconds
        var pipeline = RedisPipeline()
        redis.append(job, model: Self.model, to: &pipeline)
        redis.client.send(pipeline) { _ in }
    }

    private func end(_ channel: String, _ watch: JobWatch, isFailed: Bool) {
        if isMeasuring { times.record(max(1, MonotonicClock.nanoseconds - watch.submitted)) }
        redis.subscriber.unsubscribe(channel)
        running -= 1
        ended += 1
        if isFailed { failed += 1 }
        next()
    }
}

/// The state of one job. Accessed on the client's event loop only.
private final class JobWatch {
    /// CLOCK_MONOTONIC ns; 0: not submitted yet.
    var submitted: UInt64 = 0
}
