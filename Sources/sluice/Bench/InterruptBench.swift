import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support

/// `sluice bench interrupt`: the latency of interrupts and the tokens generated after them, with or without other streams.
struct InterruptBench: Sendable {
    let deployment: BenchDeployment
    let count: Int
    /// Interval between tokens of an interrupted stream, milliseconds.
    let gap: Double
    /// Background streams and the interval between their tokens in milliseconds. Their output is not read.
    let load: (streams: Int, gap: Double)?
    let isThroughWebSocket: Bool

    /// Number of concurrent streams to interrupt.
    private static let batch = 10
    private var model: SimulatedModel { SimulatedModel(tokens: Int(120_000 / max(gap, 0.1)), gap: gap) }

    /// The results of one kind of interrupt.
    private struct Sums {
        var acknowledged = Times()
        var closed = Times()
        var lastFrame = Times()
        var tokensAfter = 0
        var mostTokensAfter = 0
        var missed = 0
    }

    func run() async throws -> BenchReport {
        guard let load else { return try await measure() }
        let redis = deployment.redis
        let others = redis.newJobs(load.streams)
        return try await redis.ending(others) {
            Progress.say("starting \(load.streams) background streams with a token every \(BenchReport.rounded(load.gap)) ms")
            try await redis.submit(
                others, model: SimulatedModel(tokens: Int(600_000 / load.gap), gap: load.gap),
                over: max(load.gap / 1_000, Double(load.streams) / 1_000))
            try await Task.sleep(for: .seconds(3))
            return try await measure()
        }
    }

    private func measure() async throws -> BenchReport {
        Progress.say("warming up")
        var bare = Times()
        _ = try await trials(count: min(count, 2 * Self.batch), bare: &bare, webSocket: false)
        bare = Times()
        Progress.say("\(count) interrupts through Redis")
        let raw = try await trials(count: count, bare: &bare, webSocket: false)
        var relayed: Sums?
        if isThroughWebSocket {
            Progress.say("\(count) interrupts through the WebSocket")
            relayed = try await trials(count: count, bare: &bare, webSocket: true)
        }
        var report = BenchReport("interrupt")
        report.set("interrupts", .integer(count))
        report.set("gap_ms", .number(BenchReport.rounded(gap)))
        report.set("load", .string(load.map { "\($0.streams)x\(BenchReport.rounded($0.gap))" } ?? "none"))
        add(raw, "redis", "PUBLISH", to: &report)
        report.add(
            "publish_to_closed_ratio", "PUBLISH → upstream closed, p50, relative to plain pub/sub p50",
            raw.closed.percentile(50) / max(0.001, bare.percentile(50)), "")
        if let relayed { add(relayed, "websocket", "INTERRUPT", to: &report) }
        report.add("bare_pubsub", "plain PUBLISH → subscriber, between the interrupts", bare)
        return report
    }

    /// Adds the results of one kind of interrupt to the report.
    private func add(_ sums: Sums, _ key: String, _ title: String, to report: inout BenchReport) {
        report.add("\(key)_tokens_after_maximum", "\(title): tokens generated afterwards, maximum", Double(sums.mostTokensAfter), "")
        report.add("\(key)_tokens_after", "\(title): tokens generated afterwards, total", Double(sums.tokensAfter), "")
        report.add("\(key)_missed", "\(title): upstreams not closed", Double(sums.missed), "")
        report.add("\(key)_acknowledged", "\(title) → acknowledged", sums.acknowledged)
        report.add("\(key)_closed", "\(title) → upstream closed", sums.closed)
        report.add("\(key)_last_frame", "\(title) → last event or frame", sums.lastFrame)
    }

    /// Starts streams in batches and interrupts them one after the other.
    private func trials(count: Int, bare: inout Times, webSocket: Bool) async throws -> Sums {
        var sums = Sums()
        for start in stride(from: 0, to: count, by: Self.batch) {
            let size = min(Self.batch, count - start)
            let jobs = deployment.redis.newJobs(size)
            let reader = StreamReader(jobs: jobs.map(\.rawValue), gap: model.gapNanoseconds, eventLoop: deployment.redis.eventLoop)
            let began = MonotonicClock.nanoseconds
            var socket: BenchSocket?
            if webSocket {
                socket = try await BenchSocket.connect(
                    to: deployment.gateway, key: deployment.key, eventLoop: deployment.redis.eventLoop, reader: reader)
                for index in 0..<size { socket?.ask(index, model: model) }
            } else {
                try await deployment.redis.follow(jobs, as: reader)
                try await deployment.redis.submit(jobs, model: model, over: gap / 1_000)
            }
            try await reader.wait(for: "returned tokens", seconds: 30) { $0.tokens >= 3 }
            var sent: [UInt64] = []
            for index in 0..<size {
                // A random delay, so that interrupts are not synchronized with tokens.
                try await Task.sleep(for: .microseconds(Int64.random(in: 2_000...12_000)))
                bare.add(try await deployment.redis.barePublish())
                sent.append(try await interrupt(index, jobs[index], socket))
            }
            try await reader.wait(for: "ended", seconds: 30) { $0.ended != nil }
            if webSocket { try await reader.wait(for: "were acknowledged", seconds: 10) { $0.acknowledged != nil } }
            deployment.redis.unfollow(jobs)
            await socket?.close()
            try await compare(reader.streams, sent: sent, since: began, into: &sums)
        }
        return sums
    }

    /// Sends an interrupt.
    /// - Returns: the time of sending, CLOCK_MONOTONIC ns.
    private func interrupt(_ index: Int, _ job: JobID, _ socket: BenchSocket?) async throws -> UInt64 {
        let redis = deployment.redis
        return try await redis.eventLoop.submit {
            let now = MonotonicClock.nanoseconds
            if let socket { socket.interrupt(index) } else { redis.interrupt([job]) }
            return now
        }.get()
    }

    /// Compares the streams with the simulator's list of requests.
    private func compare(_ streams: [StreamReader.Stream], sent: [UInt64], since: UInt64, into sums: inout Sums) async throws {
        let requests = Dictionary(try await deployment.simulator.requests(since: since).map { ($0.tag, $0) }) { first, _ in first }
        for (stream, sent) in zip(streams, sent) {
            if let acknowledged = stream.acknowledged, acknowledged >= sent { sums.acknowledged.add(acknowledged - sent) }
            if let ended = stream.ended, ended >= sent { sums.lastFrame.add(ended - sent) }
            guard let request = requests[stream.job], let closed = request.clientLeft ?? request.ended, closed >= sent else {
                sums.missed += 1
                continue
            }
            sums.closed.add(closed - sent)
            // Tokens that were due before the interrupt do not count.
            let due = sent < request.accepted ? 0 : Int((sent - request.accepted) / model.gapNanoseconds) + 1
            let after = max(0, request.tokens - due)
            sums.tokensAfter += after
            sums.mostTokensAfter = max(sums.mostTokensAfter, after)
        }
    }
}
