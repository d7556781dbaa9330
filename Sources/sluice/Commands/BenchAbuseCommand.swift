import ArgumentParser

struct BenchAbuseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "abuse", abstract: "Cost of a tenant or an address that attacks, for the gateway, Redis and another tenant.",
        discussion: """
            Each attack meets a deployment of its own with default limits. The promise: the gateway grows by at most 256 MiB and Redis by \
            128 MiB, another tenant's requests all succeed, and their p99 is at most 250 ms above that at rest. Exit status 1 when it is \
            broken. Load goes to 127.0.0.1 only. Attacks: \(AbuseAttack.all.map(\.name).joined(separator: ", ")).
            """)

    @Flag(name: .long, help: "Required: only a deployment of its own is attacked.") var selfContained = false
    @Option(name: .long, help: ArgumentHelp("Only this attack; again for more.", valueName: "name")) var attack: [String] = []
    @Option(name: .long, help: "How long an attack lasts.") var seconds = 5.0
    @Option(name: .long, help: "How long the other tenant is measured before it.") var restSeconds = 2.0
    @Option(name: .long, help: "Multiplies the allowed latency, for debug builds and slow machines.") var slack = 1.0
    @Flag(name: .long, help: "Smaller attacks, for debug builds.") var quick = false
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard selfContained else { throw ValidationError("abuse needs --self-contained: it would harm a deployment that serves others.") }
        for name in attack where AbuseAttack.named(name) == nil { throw ValidationError("There is no attack \"\(name)\".") }
        guard (0.5...60).contains(seconds), (0.2...60).contains(restSeconds) else {
            throw ValidationError("--seconds may be 0.5 to 60, --rest-seconds 0.2 to 60.")
        }
        guard (1...100).contains(slack) else { throw ValidationError("--slack may be 1 to 100.") }
    }

    func run() async throws {
        let bench = AbuseBench(isQuick: quick, seconds: seconds, restSeconds: restSeconds, slack: slack)
        var broken: [String] = []
        for attack in attack.isEmpty ? AbuseAttack.all : attack.compactMap(AbuseAttack.named) {
            Progress.say("\(attack.name): \(attack.summary)")
            let finding = try await bench.run(attack)
            if output.json { StandardOutput.writeLine(finding.json) } else { StandardOutput.write(finding.text) }
            if !finding.broken.isEmpty { broken.append(attack.name) }
        }
        guard broken.isEmpty else {
            throw CommandFailure(.failed, "sluice: the promise is broken by \(broken.joined(separator: ", "))")
        }
    }
}
