import Contract
import JSONCodec
import NIOCore
import OperatorTools
import RedisClient

/// `sluice bench ttft`: the time to first token through Redis and through a gateway, compared with direct calls.
///
/// Requests are sequential and alternate between the paths. A plain pub/sub message is measured in each round as a reference for comparing
/// machines.
package struct FirstTokenBench: Sendable {
    private let deployment: BenchDeployment
    private let count: Int
    private let isThroughWebSocket: Bool

    package init(deployment: BenchDeployment, count: Int, isThroughWebSocket: Bool) {
        self.deployment = deployment
        self.count = count
        self.isThroughWebSocket = isThroughWebSocket
    }

    /// Two tokens, so that the cost of a job's end is not part of the time to first token.
    private static let model = SimulatedModel(tokens: 2, gap: 0.3)
    private static let warmUps = 20

    /// Measures and returns the report.
    /// - Throws: `CommandFailure` when a node does not answer or a stream does not end in time.
    package func run() async throws -> BenchReport {
        let redis = deployment.redis
        let rounds = count + Self.warmUps
        let jobs = redis.newJobs(rounds)
        func reader() -> StreamReader { StreamReader(jobs: jobs.map(\.rawValue), gap: 0, eventLoop: redis.eventLoop) }
        let (byRedis, bySocket) = (reader(), reader())
        let socket =
            isThroughWebSocket
            ? try await BenchSocket.connect(to: deployment.gateway, key: deployment.key, eventLoop: redis.eventLoop, reader: bySocket) : nil
        let directReader = StreamReader(jobs: ["direct"], gap: 0, eventLoop: redis.eventLoop)
        let call = try await DirectCall.open(to: deployment.simulator.address, index: 0, reader: directReader, eventLoop: redis.eventLoop)
        Progress.say("subscribing, warming up")
        try await redis.follow(jobs, as: byRedis)
        let (bare, direct, raw, relayed) = try await withTaskExecutorPreference(redis.client.executor) {
            var (bare, direct, raw, relayed) = (Times(), Times(), Times(), Times())
            for round in 0..<rounds {
                if round == Self.warmUps { (bare, direct, raw, relayed) = (Times(), Times(), Times(), Times()) }
                if round > Self.warmUps, (round - Self.warmUps) % 100 == 0 { Progress.say("\(round - Self.warmUps) of \(count)") }
                bare.add(try await redis.barePublish())
                await directReader.forget(0)
                direct.add(try await time(directReader, 0) { call.ask(Self.model, tag: "direct") })
                let job = jobs[round]
                raw.add(
                    try await time(byRedis, round) {
                        var pipeline = RedisPipeline()
                        redis.append(job, model: Self.model, to: &pipeline)
                        redis.client.send(pipeline) { _ in }
                    })
                if let socket { relayed.add(try await time(bySocket, round) { socket.ask(round, model: Self.model) }) }
            }
            return (bare, direct, raw, relayed)
        }
        redis.unfollow(jobs)
        await call.close()
        await socket?.close()
        var report = BenchReport("ttft")
        report.set("requests", .integer(count))
        report.add("redis_added_p50_us", "added by Redis, p50", raw.percentile(50) - direct.percentile(50), "µs")
        report.add("redis_added_p99_us", "added by Redis, p99", raw.percentile(99) - direct.percentile(99), "µs")
        report.add(
            "redis_added_ratio", "added by Redis, p50, relative to plain pub/sub p50",
            (raw.percentile(50) - direct.percentile(50)) / max(0.001, bare.percentile(50)), "")
        if isThroughWebSocket {
            report.add(
                "websocket_added_p50_us", "added by the WebSocket, p50", relayed.percentile(50) - direct.percentile(50),
                "µs")
            report.add(
                "websocket_added_p99_us", "added by the WebSocket, p99", relayed.percentile(99) - direct.percentile(99),
                "µs")
            report.add(
                "websocket_added_ratio", "added by the WebSocket, p50, relative to plain pub/sub p50",
                (relayed.percentile(50) - direct.percentile(50)) / max(0.001, bare.percentile(50)), "")
        }
        report.add("bare_pubsub", "plain PUBLISH → subscriber", bare)
        report.add("direct", "direct call → first token", direct)
        report.add("redis", "XADD → first token", raw)
        report.add("websocket", "REQUEST → first token", relayed)
        return report
    }

    /// The time to first token of one request, ns.
    private func time(_ reader: StreamReader, _ index: Int, _ ask: @Sendable () -> Void) async throws -> UInt64 {
        guard let time = await reader.timeFirstToken(of: index, patience: .seconds(20), ask: ask) else {
            throw CommandFailure(.failed, "sluice: a request returned no token within 20 s")
        }
        return time
    }
}
