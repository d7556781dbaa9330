import ArgumentParser
import Benchmarks
import JSONCodec
import Synchronization
import Upstream

/// `sluice bench`: measurements of a running deployment or of one started for the measurement.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure a running deployment that uses the simulator, or one started for the measurement.",
        discussion: """
            All times are from this machine's monotonic clock, so the simulator must run on the same machine. Other load on the machine \
            affects the results: compare numbers of one table rather than of two runs.
            """,
        subcommands: [
            BenchRelayCommand.self, BenchInterruptCommand.self, BenchJobsCommand.self, BenchFirstTokenCommand.self,
            BenchVoiceCommand.self, BenchSocketsCommand.self, BenchSweepCommand.self, BenchFairnessCommand.self, BenchAbuseCommand.self,
        ])

    /// Runs a measurement and prints its report.
    /// - Parameter capacity: concurrency of the worker of a self-contained deployment.
    static func run(
        _ options: BenchOptions, capacity: Int, _ measure: @escaping @Sendable (BenchDeployment) async throws -> BenchReport
    ) async throws {
        try await run(options, size: BenchSize(capacity: capacity), measure)
    }

    /// Runs a measurement and prints its report.
    /// - Parameter size: of a self-contained deployment.
    static func run(
        _ options: BenchOptions, size: BenchSize, _ measure: @escaping @Sendable (BenchDeployment) async throws -> BenchReport
    ) async throws {
        try await run(options, size: size, kind: .openai, measure).print(asJSON: options.output.json)
    }

    /// Runs a measurement and returns its report.
    /// - Parameter kind: dialect between worker and simulator of a self-contained deployment.
    static func run(
        _ options: BenchOptions, size: BenchSize, kind: UpstreamConfiguration.Kind,
        _ measure: @escaping @Sendable (BenchDeployment) async throws -> BenchReport
    ) async throws -> BenchReport {
        let found = Mutex(BenchReport(""))
        try await BenchDeployment.with(try options.target, size: size, kind: kind) { deployment in
            let report = try await measure(deployment)
            found.withLock { $0 = report }
        }
        return found.withLock { $0 }
    }
}

/// `sluice bench relay`.
struct BenchRelayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay", abstract: "Measure CPU time and lateness per relayed token.",
        discussion:
            "CPU time per token of every process (--process for those of a running deployment), token rate, lateness, memory per stream.")

    @Option(name: .long, help: "Concurrent streams.") var streams = 1_000
    @Option(name: .long, help: "Interval between tokens of a stream in milliseconds.") var gap = 100.0
    @Option(name: .long, help: "Duration of the measurement in seconds.") var seconds = 10.0
    @Option(name: .long, help: "Duration of the warm-up in seconds.") var warmUp = 3.0
    @Flag(name: .long, help: "Read through a gateway's WebSocket instead of from Redis.") var websocket = false
    @Option(
        name: .long,
        help: "Dialect between worker and simulator: openai, dashscope, anthropic or ollama; all: compare all of them.")
    var kind = "openai"
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard kind == "all" || UpstreamConfiguration.Kind(rawValue: kind) != nil else {
            throw ValidationError("--kind may be openai, dashscope, anthropic, ollama or all.")
        }
        guard kind == "openai" || options.selfContained else {
            throw ValidationError("--kind requires --self-contained, because a running worker's dialect is set by its settings.")
        }
        guard (1...20_000).contains(streams) else {
            throw ValidationError("--streams may be 1 to 20000 (the simulator remembers 25,000 requests).")
        }
        guard gap > 0, gap <= 60_000 else { throw ValidationError("--gap may be more than 0 and at most 60000.") }
        guard seconds > 0, seconds <= 3_600, warmUp >= 0, warmUp <= 600 else {
            throw ValidationError("--seconds may be at most 3600, --warm-up 600.")
        }
    }

    func run() async throws {
        let kinds = UpstreamConfiguration.Kind(rawValue: kind).map { [$0] } ?? UpstreamConfiguration.Kind.allCases
        var comparison = KindComparison(streams: streams, gap: gap)
        for kind in kinds {
            let report = try await measure(kind)
            report.print(asJSON: options.output.json)
            comparison.add(kind, report)
        }
        if kinds.count > 1 { comparison.report.print(asJSON: options.output.json) }
    }

    private func measure(_ kind: UpstreamConfiguration.Kind) async throws -> BenchReport {
        let (streams, gap, seconds, warmUp, websocket) = (streams, gap, seconds, warmUp, websocket)
        var size = BenchSize(capacity: streams + 64)
        // Of the worker and of the simulator, one for each stream.
        size.sockets = streams
        return try await BenchCommand.run(options, size: size, kind: kind) { deployment in
            var report = try await RelayBench(
                deployment: deployment, streams: streams, gap: gap, seconds: seconds, warmUp: warmUp, isThroughWebSocket: websocket
            ).run()
            report.set("kind", .string(kind.rawValue))
            return report
        }
    }
}

/// `sluice bench interrupt`.
struct BenchInterruptCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "interrupt", abstract: "Measure how fast an interrupt closes the upstream connection, and tokens generated after it.",
        discussion:
            "Interrupts are sent through Redis (SET and PUBLISH) and as INTERRUPT on a WebSocket; the latency of a plain PUBLISH is measured too."
    )

    @Option(name: .long, help: "Number of interrupts of each kind.") var count = 200
    @Option(name: .long, help: "Interval between tokens of an interrupted stream in milliseconds.") var gap = 20.0
    @Option(
        name: .long,
        help: ArgumentHelp("Background streams and the milliseconds between their tokens, such as 1000x40.", valueName: "streams x ms"))
    var load: String?
    @Flag(name: .long, inversion: .prefixedNo, help: "Also measure through a gateway's WebSocket.") var websocket = true
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...5_000).contains(count) else { throw ValidationError("--count may be 1 to 5000.") }
        guard gap > 0, gap <= 10_000 else { throw ValidationError("--gap may be more than 0 and at most 10000.") }
        if let load, Self.parse(load) == nil {
            throw ValidationError("--load must be streams (at most 9000) x milliseconds, such as 1000x40.")
        }
    }

    /// `streams x ms`; nil when the text is invalid.
    private static func parse(_ text: String) -> (streams: Int, gap: Double)? {
        let sides = text.split(separator: "x", maxSplits: 1)
        guard sides.count == 2, let streams = Int(sides[0]), let gap = Double(sides[1]), (1...9_000).contains(streams), gap > 0 else {
            return nil
        }
        return (streams, gap)
    }

    func run() async throws {
        let (count, gap, load, websocket) = (count, gap, load.flatMap(Self.parse), websocket)
        try await BenchCommand.run(options, capacity: (load?.streams ?? 0) + 64) { deployment in
            try await InterruptBench(deployment: deployment, count: count, gap: gap, load: load, isThroughWebSocket: websocket).run()
        }
    }
}

/// `sluice bench jobs`.
struct BenchJobsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jobs", abstract: "Measure the throughput of one-token jobs.",
        discussion:
            "A job is measured from XADD to the last event on its channel. Each job subscribes to and unsubscribes from its channel.")

    @Option(name: .long, help: "Concurrent jobs.") var inFlight = 256
    @Option(name: .long, help: "Duration of the measurement in seconds.") var seconds = 10.0
    @Option(name: .long, help: "Duration of the warm-up in seconds.") var warmUp = 3.0
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...5_000).contains(inFlight) else { throw ValidationError("--in-flight may be 1 to 5000.") }
        guard seconds > 0, seconds <= 3_600, warmUp >= 0, warmUp <= 600 else {
            throw ValidationError("--seconds may be at most 3600, --warm-up 600.")
        }
    }

    func run() async throws {
        let (inFlight, seconds, warmUp) = (inFlight, seconds, warmUp)
        try await BenchCommand.run(options, capacity: inFlight) { deployment in
            try await JobsBench(deployment: deployment, inFlight: inFlight, seconds: seconds, warmUp: warmUp).run()
        }
    }
}

/// `sluice bench ttft`.
struct BenchFirstTokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ttft", abstract: "Measure the time to first token compared with direct calls to the simulator.")

    @Option(name: .long, help: "Number of requests on each path.") var count = 500
    @Flag(name: .long, inversion: .prefixedNo, help: "Also measure through a gateway's WebSocket.") var websocket = true
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...50_000).contains(count) else { throw ValidationError("--count may be 1 to 50000.") }
    }

    func run() async throws {
        let (count, websocket) = (count, websocket)
        try await BenchCommand.run(options, capacity: 64) { deployment in
            try await FirstTokenBench(deployment: deployment, count: count, isThroughWebSocket: websocket).run()
        }
    }
}

/// `sluice bench voice`.
struct BenchVoiceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "voice", abstract: "Measure how soon an answer is heard, and how fast an interrupt silences it.",
        discussion: """
            Answers with a voice through a gateway's WebSocket: from the first text to the first voice frame, and from INTERRUPT to the end \
            of the last upstream connection while the speech is running. A running deployment needs workers whose speech upstream is the \
            simulator with long sentences, such as SLUICE_SPEECH_MODEL=sim-n3000-g20-f50.
            """)

    @Option(name: .long, help: "Number of answers.") var count = 100
    @Option(name: .long, help: "Number of concurrent answers.") var together = 1
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...5_000).contains(count) else { throw ValidationError("--count may be 1 to 5000.") }
        // The limit of a session's concurrent requests.
        guard (1...32).contains(together) else { throw ValidationError("--together may be 1 to 32.") }
    }

    func run() async throws {
        let (count, together) = (count, together)
        try await BenchCommand.run(options, capacity: 64) { deployment in
            try await VoiceBench(deployment: deployment, count: count, batch: together).run()
        }
    }
}

/// `sluice bench sockets`.
struct BenchSocketsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sockets", abstract: "Measure memory per idle WebSocket, and CPU time of all of them.",
        discussion: "Reports the resident memory of the gateway's process (--process for one of a running deployment).")

    @Option(name: .long, help: "Number of WebSockets.") var count = 2_000
    @Option(name: .long, help: "Duration of the measurement in seconds; heartbeats are sent every 25 s.") var seconds = 10.0
    @OptionGroup var options: BenchOptions

    func validate() throws {
        // One address has 28,000 ports for outgoing connections by default.
        guard (1...25_000).contains(count) else { throw ValidationError("--count may be 1 to 25000.") }
        guard seconds > 0, seconds <= 3_600 else { throw ValidationError("--seconds may be at most 3600.") }
    }

    func run() async throws {
        let (count, seconds) = (count, seconds)
        var size = BenchSize(capacity: 64)
        size.sockets = count
        try await BenchCommand.run(options, size: size) { deployment in
            try await SocketBench(deployment: deployment, sockets: count, seconds: seconds).run()
        }
    }
}

/// `sluice bench sweep`.
struct BenchSweepCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep", abstract: "Measure what a deployment costs in which nothing happens.",
        discussion: """
            Workers whose slots are taken by jobs that produce nothing, and waiting jobs whose clients are connected by WebSockets: Redis \
            commands per second and CPU time, for renewals of leases, searches for lost workers and looks at silent jobs.
            """)

    @Option(name: .long, help: "Number of workers.") var workers = 4
    @Option(name: .long, help: "Running jobs of each worker.") var running = 256
    @Option(name: .long, help: "Waiting jobs.") var waiting = 3_000
    @Option(name: .long, help: "Duration of the measurement in seconds.") var seconds = 15.0
    @Option(name: .long, help: "Time before the measurement in seconds.") var warmUp = 8.0
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard options.selfContained else {
            throw ValidationError("sweep requires --self-contained, because its jobs take all slots of the workers.")
        }
        guard (1...100).contains(workers), (1...4_096).contains(running), workers * running <= 30_000 else {
            throw ValidationError("--workers may be 1 to 100, --running 1 to 4096, and their product at most 30000.")
        }
        guard (0...100_000).contains(waiting) else { throw ValidationError("--waiting may be 0 to 100000.") }
        guard seconds > 0, seconds <= 3_600, (0...600).contains(warmUp) else {
            throw ValidationError("--seconds may be at most 3600, --warm-up 600.")
        }
    }

    func run() async throws {
        let (each, running, waiting, seconds, warmUp) = (running, workers * running, waiting, seconds, warmUp)
        var size = BenchSize(capacity: each)
        size.workers = workers
        size.isExact = true
        // A simulator holds a connection of each running job, and the usual hard limit of file descriptors is some 20,000.
        size.simulators = (running + 9_999) / 10_000
        size.sockets = max(waiting / 32, (workers / size.simulators + 1) * each)
        try await BenchCommand.run(options, size: size) { deployment in
            try await SweepBench(deployment: deployment, running: running, waiting: waiting, seconds: seconds, warmUp: warmUp).run()
        }
    }
}
