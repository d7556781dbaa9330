import ArgumentParser
import Benchmarks
import JobQueue
import OperatorTools

/// The options of all measurements.
struct BenchOptions: ParsableArguments {
    @Flag(name: .long, help: "Start Redis, a simulator, a worker and a gateway for the measurement.")
    var selfContained = false
    @Option(
        name: .long,
        help: ArgumentHelp("The simulator used by the deployment (default: from SLUICE_UPSTREAM_URL).", valueName: "host:port"))
    var simulator: String?
    @Option(name: .long, help: ArgumentHelp("The gateway (default: from SLUICE_LISTEN).", valueName: "address"))
    var url: String?
    @Option(
        name: .long,
        help: ArgumentHelp(
            "A local process whose CPU time is measured, such as worker=4711; may be repeated.", valueName: "name=pid"))
    var process: [String] = []
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        if let simulator, ListenAddress(simulator) == nil {
            throw ValidationError("--simulator must be an address such as 127.0.0.1:9090.")
        }
        if let url, ChatAddress(url) == nil { throw ValidationError("--url must be an address such as ws://127.0.0.1:8080.") }
        for text in process where Self.named(text) == nil {
            throw ValidationError("--process must be a name and a process id, such as worker=4711.")
        }
    }

    /// The deployment to measure.
    /// - Throws: `SettingFaults`; `CommandFailure` for an invalid address of Redis.
    var target: BenchTarget {
        get throws {
            let source = settings.source
            if selfContained {
                let level = source.value("SLUICE_LOG_LEVEL")
                return .selfContained(
                    environment: source.environment, logLevel: level.flatMap { $0.origin == .default ? nil : $0.text } ?? "warning")
            }
            var reader = SettingsReader(source)
            let found = reader.deployment()
            try reader.finish()
            guard let found else { throw CommandFailure(.usage, "SLUICE_REDIS_URL is invalid") }
            let upstream = source.value("SLUICE_UPSTREAM_URL").flatMap { ChatAddress($0.text) }
            let listen = source.value("SLUICE_LISTEN").flatMap { ListenAddress($0.text) } ?? ListenAddress(host: "127.0.0.1", port: 8_080)
            return .running(
                RunningDeployment(
                    redisURL: found.redisURL, redis: found.redis, keys: found.queue.keys,
                    simulator: simulator.flatMap { ListenAddress($0) } ?? upstream.map { ListenAddress(host: $0.host, port: $0.port) }
                        ?? ListenAddress(host: "127.0.0.1", port: 9_090),
                    gateway: url.flatMap { ChatAddress($0) } ?? ChatAddress(listening: listen), key: source.value("SLUICE_API_KEY")?.text,
                    processes: process.compactMap(Self.named)))
        }
    }

    /// Parses `name=pid`.
    private static func named(_ text: String) -> (name: String, pid: Int)? {
        let sides = text.split(separator: "=", maxSplits: 1)
        guard sides.count == 2, let pid = Int(sides[1]), pid > 0 else { return nil }
        return (String(sides[0]), pid)
    }
}
