import Contract
import JSONCodec
import RedisClient
import Support

/// `sluice bench relay`: CPU time and lateness per relayed token, with many streams at a constant rate.
struct RelayBench: Sendable {
    let deployment: BenchDeployment
    let streams: Int
    /// Interval between tokens of a stream, milliseconds.
    let gap: Double
    let seconds: Double
    let warmUp: Double
    let isThroughWebSocket: Bool

    /// Streams that are read directly from the simulator at the same time. Their lateness is the part of the simulator and the client.
    private static let directStreams = 4

    func run() async throws -> BenchReport {
        let jobs = deployment.redis.newJobs(streams)
        return try await deployment.redis.ending(isThroughWebSocket ? [] : jobs) { try await relay(jobs) }
    }

    /// Starts the streams, measures and ends them.
    private func relay(_ jobs: [JobID]) async throws -> BenchReport {
        let redis = deployment.redis
        let ramp = max(min(gap, 2_000) / 1_000, Double(streams) / 1_000)
        let model = SimulatedModel(tokens: Int((ramp + warmUp + seconds + 30) * 1_000 / max(gap, 0.01)), gap: gap)
        let before = deployment.readings()
        let reader = StreamReader(jobs: jobs.map(\.rawValue), gap: model.gapNanoseconds, eventLoop: redis.eventLoop)
        let began = MonotonicClock.nanoseconds
        Progress.say("starting \(streams) streams with a token every \(BenchReport.rounded(gap)) ms")
        var sockets: [BenchSocket] = []
        if isThroughWebSocket {
            sockets = try await openSockets(reader)
            let pause = Duration.nanoseconds(Int64(ramp * 1_000_000_000 / Double(streams)))
            let start = ContinuousClock.now
            for index in 0..<streams {
                sockets[index / BenchSocket.requestsEach].ask(index, model: model)
                if index % 8 == 7 { try await Task.sleep(until: start + pause * (index + 1), clock: .continuous) }
            }
        } else {
            try await redis.follow(jobs, as: reader)
            try await redis.submit(jobs, model: model, over: ramp)
        }
        let direct = StreamReader(
            jobs: (0..<Self.directStreams).map { "direct-\($0)" }, gap: model.gapNanoseconds, eventLoop: redis.eventLoop)
        var calls: [DirectCall] = []
        for index in 0..<Self.directStreams {
            let call = try await DirectCall.open(to: deployment.simulator.address, index: index, reader: direct, eventLoop: redis.eventLoop)
            call.ask(model, tag: "direct-\(index)")
            calls.append(call)
        }
        try await reader.wait(for: "returned a token", seconds: 60 + 10 * gap / 1_000, every: .milliseconds(50)) { $0.firstToken != nil }
        // These models send the first token on acceptance of the request, so a stream's schedule starts at that time.
        let requests = try await deployment.simulator.requests(since: began)
        let starts = Dictionary(requests.map { ($0.tag, $0.accepted) }) { first, _ in first }
        await reader.startTimes(starts)
        await direct.startTimes(starts)
        Progress.say("warming up for \(BenchReport.rounded(warmUp)) s")
        try await Task.sleep(for: .seconds(warmUp))
        let report = try await measure(reader, direct, before: before)
        Progress.say("ending the streams")
        for call in calls { await call.close() }
        if isThroughWebSocket {
            for socket in sockets { socket.interruptAll() }
        } else {
            try await redis.end(jobs)
        }
        try await reader.wait(for: "ended", seconds: 60, every: .milliseconds(50)) { $0.ended != nil }
        for socket in sockets { await socket.close() }
        return report
    }

    /// Opens as many WebSockets as the streams need.
    private func openSockets(_ reader: StreamReader) async throws -> [BenchSocket] {
        var sockets: [BenchSocket] = []
        for _ in 0..<((streams + BenchSocket.requestsEach - 1) / BenchSocket.requestsEach) {
            sockets.append(
                try await BenchSocket.connect(
                    to: deployment.gateway, key: deployment.key, eventLoop: deployment.redis.eventLoop, reader: reader))
        }
        return sockets
    }

    /// Measures the running streams.
    /// - Parameter before: readings before the streams were started, for the memory per stream.
    private func measure(_ reader: StreamReader, _ direct: StreamReader, before: [ProcessReading]) async throws -> BenchReport {
        let redis = deployment.redis
        let commandsBefore = try await redis.commandsProcessed()
        await reader.measure(true)
        await direct.measure(true)
        let (tokensBefore, messagesBefore) = (await reader.tokens, await reader.messages)
        let (start, first) = (MonotonicClock.nanoseconds, deployment.readings())
        let whole = max(1, Int(seconds / 5))
        for part in 1...whole {
            try await Task.sleep(for: .seconds(seconds / Double(whole)))
            let rate = Double(await reader.tokens - tokensBefore) / (Double(MonotonicClock.nanoseconds - start) / 1e9)
            Progress.say(
                "\(BenchReport.rounded(seconds * Double(part) / Double(whole))) of \(BenchReport.rounded(seconds)) s, \(Int(rate)) tokens/s"
            )
        }
        let (end, last) = (MonotonicClock.nanoseconds, deployment.readings())
        let (tokens, messages) = (await reader.tokens - tokensBefore, await reader.messages - messagesBefore)
        await reader.measure(false)
        await direct.measure(false)
        let commands = try await redis.commandsProcessed() - commandsBefore
        let elapsed = Double(end - start) / 1e9
        var report = BenchReport("relay")
        report.set("streams", .integer(streams))
        report.set("gap_ms", .number(BenchReport.rounded(gap)))
        report.set("path", .string(isThroughWebSocket ? "WebSocket" : "Redis"))
        report.set("seconds", .number(BenchReport.rounded(elapsed)))
        report.add("tokens_offered_per_second", "tokens offered", Double(streams) * 1_000 / gap, "/s")
        report.add("tokens_achieved_per_second", "tokens achieved", Double(tokens) / elapsed, "/s")
        report.add("tokens_per_message", "tokens per message", Double(tokens) / Double(max(1, messages)), "")
        report.add("redis_commands_per_token", "Redis commands per token", Double(commands) / Double(max(1, tokens)), "")
        for reading in last {
            guard let old = first.first(where: { $0.pid == reading.pid }) else { continue }
            let cpu = reading.cpu - old.cpu
            report.add("\(reading.name)_cpu_us_per_token", "\(reading.name): CPU per token", cpu / Double(max(1, tokens)), "µs")
            if reading.name == "gateway", isThroughWebSocket {
                report.add("gateway_cpu_us_per_frame", "gateway: CPU per frame", cpu / Double(max(1, messages)), "µs")
            }
            report.add("\(reading.name)_cpu_percent", "\(reading.name): CPU", cpu / (elapsed * 10_000), "%")
        }
        for reading in last where reading.name != "bench" {
            guard let old = before.first(where: { $0.pid == reading.pid }) else { continue }
            let kilobytes = Double(reading.residentBytes - old.residentBytes) / 1_024 / Double(streams)
            report.add("\(reading.name)_resident_kb_per_stream", "\(reading.name): resident memory per stream", kilobytes, "KB")
        }
        let broken = await reader.count { $0.isBroken || $0.hasFailed }
        report.add("streams_broken", "streams with a gap, a repetition or a failure", Double(broken), "")
        report.add("lateness", "due → arrived", Times(await reader.lateness))
        report.add("direct_lateness", "due → arrived, simulator called directly", Times(await direct.lateness))
        return report
    }
}
