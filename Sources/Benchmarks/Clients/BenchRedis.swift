import Contract
import JSONCodec
import NIOCore
import NIOPosix
import OperatorTools
import RedisClient
import Support

/// The measuring client's connections to Redis, on one event loop for commands and subscriptions, like a front end without a gateway.
///
/// The benchmarks measure Redis itself and the contract of foreign front ends, so they use `RedisClient` instead of `JobQueue`.
struct BenchRedis: Sendable {
    let client: RedisClient
    let subscriber: RedisSubscriber
    let keys: Keys
    var eventLoop: any EventLoop { client.eventLoop }

    /// Connects, calls `body` and disconnects.
    /// - Throws: `CommandFailure` for errors of Redis; status 69 when it is unreachable.
    static func with<Result: Sendable>(
        _ url: RedisURL, _ settings: RedisSettings, _ keys: Keys, _ body: (BenchRedis) async throws -> Result
    ) async throws -> Result {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        var settings = settings
        settings.commandTimeout = .seconds(20)
        let client = RedisClient(url: url, settings: settings, eventLoop: loop, name: "bench", logger: .silent)
        let subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: loop, name: "bench", logger: .silent)
        let connections = [Task { await client.run() }, Task { await subscriber.run() }]
        defer {
            client.shutdown()
            subscriber.shutdown()
            for connection in connections { connection.cancel() }
        }
        do {
            _ = try await client.send("PING", timeout: .seconds(4))
            return try await body(BenchRedis(client: client, subscriber: subscriber, keys: keys))
        } catch let error as RedisError {
            let isAway = error.code != .server && error.code != .protocolViolation
            throw CommandFailure(isAway ? .unavailable : .failed, "sluice: Redis at \(url): \(error.message)")
        }
    }

    /// New job ids, distributed over the partitions.
    func newJobs(_ count: Int) -> [JobID] {
        let now = UInt64(clamping: WallClock.milliseconds)
        return (0..<count).map { JobID(partition: $0 % keys.partitions, milliseconds: now) }
    }

    /// Subscribes to the jobs' output channels. Returns when all subscriptions are confirmed.
    func follow(_ jobs: [JobID], as reader: StreamReader) async throws {
        let (subscriber, keys) = (subscriber, keys)
        try await eventLoop.submit {
            for (index, job) in jobs.enumerated() {
                subscriber.subscribe(keys.out(job)) { event in
                    switch event {
                    case .subscribed: reader.assumeIsolated { $0.followed(index) }
                    case .lost: break
                    case .message(let message):
                        let bytes = message.readableBytesUInt8Span
                        let tokens = TokenScan.tokens(in: bytes)
                        // Only terminal events have this field.
                        let ends = TokenScan.contains("\"usage\":", in: bytes)
                        let fails = ends && TokenScan.contains("\"type\":\"failed\"", in: bytes)
                        reader.assumeIsolated { reader in
                            if fails { reader.failed(index) } else { reader.received(index, tokens: tokens, isLast: ends) }
                        }
                    }
                }
            }
        }.get()
        try await reader.wait(for: "were subscribed to", seconds: 20) { $0.isFollowed }
    }

    /// Unsubscribes from the jobs' output channels.
    func unfollow(_ jobs: [JobID]) {
        eventLoop.execute { [subscriber, keys] in
            for job in jobs { subscriber.unsubscribe(keys.out(job)) }
        }
    }

    /// Measures the latency of one message from PUBLISH to a subscriber, in nanoseconds.
    func barePublish() async throws -> UInt64 {
        let channel = keys.cancel(partition: 0) + ":bench"
        let loop = eventLoop
        let (subscribed, arrived) = (loop.makePromise(of: Void.self), loop.makePromise(of: UInt64.self))
        try await loop.submit {
            subscriber.subscribe(channel) { event in
                switch event {
                case .subscribed: subscribed.succeed()
                case .message: arrived.succeed(MonotonicClock.nanoseconds)
                case .lost:
                    subscribed.fail(RedisError(.connectionLost, "the subscription was lost"))
                    arrived.fail(RedisError(.connectionLost, "the subscription was lost"))
                }
            }
        }.get()
        try await subscribed.futureResult.get()
        let sent = try await loop.submit {
            var pipeline = client.makePipeline()
            pipeline.append("PUBLISH", .string(channel), "bench")
            let now = MonotonicClock.nanoseconds
            client.send(pipeline) { _ in }
            return now
        }.get()
        let time = try await arrived.futureResult.get()
        return time - sent
    }

    /// Appends the command that submits a job.
    func append(_ job: JobID, model: SimulatedModel, to pipeline: inout RedisPipeline) {
        let text = Job(id: job, priority: .interactive, request: model.request()).json.bytes
        pipeline.append(
            "XADD", .string(keys.queue(.interactive, partition: keys.partition(of: job.rawValue))), "*", "job", .bytes(text))
    }

    /// Submits jobs, spread evenly over a time in seconds, so that their tokens are not synchronized.
    func submit(_ jobs: [JobID], model: SimulatedModel, over time: Double) async throws {
        let slices = max(1, min(jobs.count, Int(time * 200)))
        let start = ContinuousClock.now
        var sent = 0
        for slice in 1...slices {
            var pipeline = client.makePipeline()
            let until = jobs.count * slice / slices
            for job in jobs[sent..<until] { append(job, model: model, to: &pipeline) }
            sent = until
            for reply in try await client.send(pipeline) { _ = try reply.orThrow() }
            try await Task.sleep(until: start + .seconds(time * Double(slice) / Double(slices)), clock: .continuous)
        }
    }

    /// Interrupts jobs as the contract describes: interrupt key, then PUBLISH, in one write. Does not wait for the replies; the caller checks
    /// the effect.
    func interrupt(_ jobs: [JobID]) { client.send(interruptCommands(for: jobs)) { _ in } }

    /// Interrupts jobs and waits for the replies, so that no job continues after the measurement.
    func end(_ jobs: [JobID]) async throws {
        for start in stride(from: 0, to: jobs.count, by: 200) {
            for reply in try await client.send(interruptCommands(for: jobs[start..<min(start + 200, jobs.count)])) {
                _ = try reply.orThrow()
            }
        }
    }

    /// Interrupts the jobs after `body`, also when it throws.
    func ending<Value>(_ jobs: [JobID], _ body: () async throws -> Value) async throws -> Value {
        let value: Value
        do { value = try await body() } catch {
            do { try await end(jobs) } catch { Progress.say("\(jobs.count) streams could not be interrupted: \(error)") }
            throw error
        }
        try await end(jobs)
        return value
    }

    private func interruptCommands(for jobs: some Sequence<JobID>) -> RedisPipeline {
        var pipeline = client.makePipeline()
        for job in jobs {
            let text = Interrupt(id: job, reason: InterruptReason.userStop).text
            pipeline.append("SET", .string(keys.interrupt(job)), .string(text), "EX", 600)
            pipeline.append("PUBLISH", .string(keys.cancel(partition: keys.partition(of: job.rawValue))), .string(text))
        }
        return pipeline
    }

    /// Number of commands that Redis has executed since its start, including those in scripts.
    func commandsProcessed() async throws -> Int {
        let text = try await client.send("INFO", "stats").string ?? ""
        return Self.field("total_commands_processed", of: text) ?? 0
    }

    /// Bytes that Redis has allocated.
    func usedMemory() async throws -> Int { Self.field("used_memory", of: try await client.send("INFO", "memory").string ?? "") ?? 0 }

    /// The process id of the server.
    func processID() async throws -> Int? { Self.field("process_id", of: try await client.send("INFO", "server").string ?? "") }

    /// A number of a reply to INFO.
    private static func field(_ name: String, of info: String) -> Int? {
        for line in info.split(whereSeparator: \.isNewline) where line.hasPrefix(name + ":") { return Int(line.dropFirst(name.count + 1)) }
        return nil
    }
}
