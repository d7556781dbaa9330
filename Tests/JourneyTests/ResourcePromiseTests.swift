import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// The resources that an attack by one tenant or address may use: 256 MiB in the gateway, its quota in Redis, and 250 ms (p99) of
    /// another tenant's latency. Runs `sluice bench abuse --quick`, each attack with its own deployment and default limits.
    @Suite struct ResourcePromiseTests {
        /// The promise applies to release builds. A debug build on a busy machine takes much longer; the stalls that this test detects
        /// lasted 7 to 60 seconds.
        private static let slack = 24.0
        private static let addedLatency = 250.0 * slack
        private static let gatewayBytes = 256 << 20
        private static let redisBytes = 128 << 20

        private static let attacks = [
            "settings-flood", "listed-parameters", "continuation-flood", "abandoned-sessions", "login-flood", "connection-flood",
            "unread-replays", "unread-websocket", "large-bodies", "doubled-names", "queue-flood", "prompt-flood", "interrupt-flood",
            "session-query-flood",
        ]

        @Test(arguments: attacks) func `an attack uses no more resources than promised`(_ attack: String) async throws {
            // A busy moment of the machine does not fail the test: a problem has to occur twice. In a longer time the attack begins on a
            // busy machine, too.
            let first = try await problems(of: attack, seconds: 1.2)
            guard !first.isEmpty else { return }
            let second = try await problems(of: attack, seconds: 8)
            #expect(second.isEmpty, "\(attack): \(second.joined(separator: "; ")); before that: \(first.joined(separator: "; "))")
        }

        @Test func `names of attacks are checked, and a running deployment is never attacked`() async throws {
            let unknown = try await Executable.run(["bench", "abuse", "--self-contained", "--attack", "no-such-attack"])
            #expect(unknown.status == .exited(2) && unknown.errors.contains("no-such-attack"))
            let running = try await Executable.run(["bench", "abuse"])
            #expect(running.status == .exited(2) && running.errors.contains("--self-contained"))
        }

        private func problems(of attack: String, seconds: Double) async throws -> [String] {
            let outcome = try await Executable.run(
                [
                    "bench", "abuse", "--self-contained", "--quick", "--seconds", "\(seconds)", "--rest-seconds", "0.5", "--json",
                    "--attack", attack,
                ],
                deadline: .seconds(150))
            // 1: the limits of a release build are exceeded. The limits of this build are below.
            guard outcome.status == .exited(0) || outcome.status == .exited(1), let line = outcome.output.split(separator: "\n").first
            else { return ["\(outcome.status) \(outcome.errors.suffix(2_000))"] }
            return try problems(in: try JSON(parsing: String(line)))
        }

        private func problems(in finding: JSON) throws -> [String] {
            var problems: [String] = []
            func bounded(_ name: String, by limit: Int) throws {
                let bytes = try #require(finding[name]?.integer, "\(name) in \(finding.text)")
                if bytes > limit { problems.append("\(name) \(bytes) > \(limit)") }
            }
            try bounded("gateway_bytes", by: Self.gatewayBytes)
            if finding["worker_bounded"]?.bool == true { try bounded("worker_bytes", by: Self.gatewayBytes) }
            try bounded("redis_bytes", by: Self.redisBytes)
            for probe in ["request", "models", "health", "login"] {
                guard let waits = finding[probe] else { continue }
                let failures = try #require(waits["failures"]?.integer)
                if failures > 0 { problems.append("\(failures) \(probe) probes failed: \(waits["first_failure"]?.string ?? "")") }
                // A log-in waits behind those of the attacker, but has to succeed.
                guard probe != "login" else { continue }
                // Medians of the p99s of three windows.
                let rest = try #require(waits["rest_steady_p99_ms"]?.double)
                let attacked = try #require(waits["attacked_steady_p99_ms"]?.double)
                if attacked - rest > Self.addedLatency { problems.append("\(probe) p99 \(rest) ms at rest, \(attacked) ms attacked") }
            }
            return problems
        }
    }
}
