import ArgumentParser
import JSONCodec
import Synchronization
import Upstream

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure a running deployment whose upstream is a simulator, or one started for it.",
        discussion: """
            All times are taken on this machine's monotonic clock, which the simulator must share. Other work on the machine is measured with it: compare \
            what stands beside each other in one table rather than numbers of two runs.
            """,
        subcommands: [
            BenchRelayCommand.self, BenchInterruptCommand.self, BenchJobsCommand.self, BenchFirstTokenCommand.self,
            BenchSocketsCommand.self, BenchAbuseCommand.self,
        ])

    /// Runs a measurement and prints what it found.
    static func run(
        _ options: BenchOptions, capacity: Int, _ measure: @escaping @Sendable (BenchDeployment) async throws -> BenchReport
    ) async throws {
        try await run(options, capacity: capacity, kind: .openai, measure).print(asJSON: options.output.json)
    }

    /// Runs a measurement.
    static func run(
        _ options: BenchOptions, capacity: Int, kind: UpstreamConfiguration.Kind,
        _ measure: @escaping @Sendable (BenchDeployment) async throws -> BenchReport
    ) async throws -> BenchReport {
        let found = Mutex(BenchReport(""))
        try await BenchDeployment.with(options, capacity: capacity, kind: kind) { deployment in
            let report = try await measure(deployment)
            found.withLock { $0 = report }
        }
        return found.withLock { $0 }
    }
}

struct BenchRelayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay", abstract: "What a relayed token costs and how late it comes.",
        discussion:
            "CPU a token of every process (--process for those of a running deployment), tokens achieved, lateness, memory a stream.")

    @Option(name: .long, help: "Streams at a time.") var streams = 1_000
    @Option(name: .long, help: "Milliseconds between two tokens of a stream.") var gap = 100.0
    @Option(name: .long, help: "How long is measured.") var seconds = 10.0
    @Option(name: .long, help: "Seconds before that.") var warmUp = 3.0
    @Flag(name: .long, help: "Through a gateway's WebSocket instead of Redis alone.") var websocket = false
    @Option(
        name: .long,
        help: "What the worker speaks to the simulator: openai, dashscope, anthropic or ollama; all: one after the other, and compared.")
    var kind = "openai"
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard kind == "all" || UpstreamConfiguration.Kind(rawValue: kind) != nil else {
            throw ValidationError("--kind may be openai, dashscope, anthropic, ollama or all.")
        }
        guard kind == "openai" || options.selfContained else {
            throw ValidationError("--kind is for --self-contained: a running worker speaks what its settings say.")
        }
        guard (1...9_000).contains(streams) else {
            throw ValidationError("--streams may be 1 to 9000 (the simulator remembers 10,000 requests).")
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
        return try await BenchCommand.run(options, capacity: streams + 64, kind: kind) { deployment in
            var report = try await RelayBench(
                deployment: deployment, streams: streams, gap: gap, seconds: seconds, warmUp: warmUp, isThroughWebSocket: websocket
            ).run()
            report.set("kind", .string(kind.rawValue))
            return report
        }
    }
}

struct BenchInterruptCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "interrupt", abstract: "How fast an interrupt closes the upstream's connection, and what is generated after it.",
        discussion: "By Redis alone (SET and PUBLISH) and by INTERRUPT on a WebSocket, with the bare time of a PUBLISH measured in between."
    )

    @Option(name: .long, help: "Interrupts of each kind.") var count = 200
    @Option(name: .long, help: "Milliseconds between two tokens of an interrupted stream.") var gap = 20.0
    @Option(
        name: .long,
        help: ArgumentHelp("Other streams and the milliseconds between their tokens, such as 1000x40.", valueName: "streams x ms"))
    var load: String?
    @Flag(name: .long, inversion: .prefixedNo, help: "Measure through a gateway's WebSocket too.") var websocket = true
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...5_000).contains(count) else { throw ValidationError("--count may be 1 to 5000.") }
        guard gap > 0, gap <= 10_000 else { throw ValidationError("--gap may be more than 0 and at most 10000.") }
        if let load, Self.parse(load) == nil {
            throw ValidationError("--load wants streams (at most 9000) and milliseconds, such as 1000x40.")
        }
    }

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

struct BenchJobsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jobs", abstract: "How many one-token jobs go through in a second.",
        discussion: "From XADD to the last event on the job's channel, which is subscribed to before and unsubscribed from after each job.")

    @Option(name: .long, help: "Jobs in flight at a time.") var inFlight = 256
    @Option(name: .long, help: "How long is measured.") var seconds = 10.0
    @Option(name: .long, help: "Seconds before that.") var warmUp = 3.0
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

struct BenchFirstTokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ttft", abstract: "What is added to the time to the first token, against direct calls to the simulator.")

    @Option(name: .long, help: "Requests on each path.") var count = 500
    @Flag(name: .long, inversion: .prefixedNo, help: "Measure through a gateway's WebSocket too.") var websocket = true
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

struct BenchSocketsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sockets", abstract: "What WebSockets cost on which nothing is said: memory each, and CPU of all.",
        discussion: "Resident memory is that of the gateway's process (--process for one of a running deployment).")

    @Option(name: .long, help: "Sockets.") var count = 2_000
    @Option(name: .long, help: "How long nothing is said; heartbeats come every 25 s.") var seconds = 10.0
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...9_000).contains(count) else { throw ValidationError("--count may be 1 to 9000.") }
        guard seconds > 0, seconds <= 3_600 else { throw ValidationError("--seconds may be at most 3600.") }
    }

    func run() async throws {
        let (count, seconds) = (count, seconds)
        try await BenchCommand.run(options, capacity: 64) { deployment in
            try await SocketBench(deployment: deployment, sockets: count, seconds: seconds).run()
        }
    }
}
