import Contract
import JSONCodec
import Support

/// `sluice bench sockets`: memory and CPU time of idle, registered WebSockets.
struct SocketBench: Sendable {
    let deployment: BenchDeployment
    let sockets: Int
    let seconds: Double

    /// Sockets opened before the measurement, so that one-time costs of the gateway (code, caches, buffers) do not count.
    private static let first = 50
    /// Number of sockets opened concurrently.
    private static let batch = 50
    /// Wait after registrations, for pending work.
    private static let settling = Duration.seconds(2)

    func run() async throws -> BenchReport {
        let reader = StreamReader(jobs: [], gap: 1, eventLoop: deployment.redis.eventLoop)
        var open = try await connect(Self.first, reader)
        try await Task.sleep(for: Self.settling)
        let before = deployment.readings()
        Progress.say("opening \(sockets) sockets")
        let start = MonotonicClock.nanoseconds
        open += try await connect(sockets, reader)
        let opening = Double(MonotonicClock.nanoseconds - start) / 1e9
        try await Task.sleep(for: Self.settling)
        let idle = deployment.readings()
        Progress.say("idle for \(BenchReport.rounded(seconds)) s")
        try await Task.sleep(for: .seconds(seconds))
        let last = deployment.readings()
        var report = BenchReport("sockets")
        report.set("sockets", .integer(sockets))
        report.set("seconds", .number(BenchReport.rounded(seconds)))
        report.add("opened_per_second", "sockets opened and registered", Double(sockets) / opening, "/s")
        for reading in last where reading.name != "bench" {
            guard let old = before.first(where: { $0.pid == reading.pid }), let resting = idle.first(where: { $0.pid == reading.pid })
            else {
                continue
            }
            let kilobytes = Double(reading.residentBytes - old.residentBytes) / 1_024 / Double(sockets)
            report.add("\(reading.name)_resident_kb_per_socket", "\(reading.name): resident memory per socket", kilobytes, "KB")
            report.add("\(reading.name)_cpu_percent", "\(reading.name): CPU", (reading.cpu - resting.cpu) / (seconds * 10_000), "%")
        }
        for socket in open { await socket.close() }
        return report
    }

    /// Opens and registers WebSockets in batches.
    private func connect(_ count: Int, _ reader: StreamReader) async throws -> [BenchSocket] {
        var sockets: [BenchSocket] = []
        while sockets.count < count {
            let next = min(Self.batch, count - sockets.count)
            sockets += try await withThrowingTaskGroup(of: BenchSocket.self) { [deployment] group in
                for _ in 0..<next {
                    group.addTask {
                        try await BenchSocket.connect(
                            to: deployment.gateway, key: deployment.key, eventLoop: deployment.redis.eventLoop, reader: reader)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
        }
        return sockets
    }
}
