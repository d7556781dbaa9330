import ArgumentParser
import Benchmarks
import OperatorTools

/// `sluice bench abuse`: runs attacks against a deployment of its own.
struct BenchAbuseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "abuse", abstract: "Measure what an attacking tenant or address costs the gateway, Redis and another tenant.",
        discussion: """
            Each attack runs against a deployment of its own with default limits. Limits to hold: the gateway grows by at most 256 MiB and \
            Redis by 128 MiB, all requests of another tenant succeed, and their p99 latency rises by at most 250 ms over an idle \
            deployment. Exit status 1 when a limit is exceeded. Load goes to 127.0.0.1 only. Attacks: \(AbuseAttack.all.map(\.name).joined(separator: ", ")).
            """)

    @Flag(name: .long, help: "Required: start a deployment for the attacks.") var selfContained = false
    @Option(name: .long, help: ArgumentHelp("Run only this attack; may be repeated.", valueName: "name")) var attack: [String] = []
    @Option(name: .long, help: "Duration of an attack in seconds.") var seconds = 5.0
    @Option(name: .long, help: "Seconds that the other tenant is measured before the attack.") var restSeconds = 2.0
    @Option(name: .long, help: "Factor for the allowed latency, for debug builds and slow machines.") var slack = 1.0
    @Flag(name: .long, help: "Smaller attacks, for debug builds.") var quick = false
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard selfContained else { throw ValidationError("abuse requires --self-contained, because it would harm a shared deployment.") }
        for name in attack where AbuseAttack.named(name) == nil { throw ValidationError("There is no attack \"\(name)\".") }
        guard (0.5...60).contains(seconds), (0.2...60).contains(restSeconds) else {
            throw ValidationError("--seconds may be 0.5 to 60, --rest-seconds 0.2 to 60.")
        }
        guard (1...100).contains(slack) else { throw ValidationError("--slack may be 1 to 100.") }
    }

    func run() async throws {
        let bench = AbuseBench(
            isQuick: quick, seconds: seconds, restSeconds: restSeconds, slack: slack, environment: SettingsSource(file: nil).environment)
        var broken: [String] = []
        for attack in attack.isEmpty ? AbuseAttack.all : attack.compactMap(AbuseAttack.named) {
            Progress.say("\(attack.name): \(attack.summary)")
            let finding = try await bench.run(attack)
            if output.json { StandardOutput.writeLine(finding.json) } else { StandardOutput.write(finding.text) }
            if !finding.broken.isEmpty { broken.append(attack.name) }
        }
        guard broken.isEmpty else {
            throw CommandFailure(.failed, "sluice: limits were exceeded by \(broken.joined(separator: ", "))")
        }
    }
}
