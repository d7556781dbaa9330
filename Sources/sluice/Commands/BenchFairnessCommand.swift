import ArgumentParser
import Benchmarks

/// `sluice bench fairness`.
struct BenchFairnessCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fairness", abstract: "Measure how evenly tenants are served, and the wait of a single job behind a backlog.",
        discussion:
            "Jobs are submitted by XADD with an owner each. Tokens are those of jobs that have ended, as the deployment counts them.")

    @Option(name: .long, help: "Waiting jobs of the flooding tenant.") var backlog = 5_000
    @Option(name: .long, help: "Single jobs of another tenant.") var probes = 20
    @Option(name: .long, help: "Duration of the measurement of shares in seconds.") var seconds = 15.0
    @Option(name: .long, help: "Slots of the worker of a self-contained deployment.") var slots = 16
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard (1...10_000).contains(backlog), (1...1_000).contains(probes), (1...1_000).contains(slots) else {
            throw ValidationError("--backlog may be 1 to 10000, --probes and --slots 1 to 1000.")
        }
        guard seconds > 0, seconds <= 3_600 else { throw ValidationError("--seconds may be at most 3600.") }
    }

    func run() async throws {
        let (backlog, probes, seconds) = (backlog, probes, seconds)
        var size = BenchSize(capacity: slots)
        size.isExact = true
        try await BenchCommand.run(options, size: size) { deployment in
            try await FairnessBench(deployment: deployment, backlog: backlog, probes: probes, seconds: seconds).run()
        }
    }
}
