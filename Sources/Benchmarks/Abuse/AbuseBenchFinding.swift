import Contract
import JSONCodec

/// The result of one attack: its effect on the nodes and on the other tenant.
package struct AbuseFinding: Sendable {
    let attack: AbuseAttack
    let slack: Double
    /// Messages, requests or connections that reached the gateway.
    let units: Int
    /// Units that the gateway rejected.
    let refused: Int
    /// Growth of memory, like the following ones.
    let gatewayBytes: Int
    let workerBytes: Int
    let redisBytes: Int
    let rest: [AbuseVictim.Probe: AbuseMeasurement]
    let attacked: [AbuseVictim.Probe: AbuseMeasurement]

    private var probes: [(probe: AbuseVictim.Probe, rest: AbuseMeasurement, attacked: AbuseMeasurement)] {
        attacked.sorted { $0.key < $1.key }.compactMap { probe, attacked in rest[probe].map { (probe, $0, attacked) } }
    }

    var failures: [String] { probes.flatMap(\.attacked.failures) }

    /// Descriptions of the exceeded limits; empty when all were held.
    package var broken: [String] {
        var broken: [String] = []
        func size(_ name: String, _ bytes: Int, _ limit: Int) {
            if bytes > limit { broken.append("\(name) grew by \(Self.megabytes(bytes)), more than \(Self.megabytes(limit))") }
        }
        size("gateway", gatewayBytes, AbusePromise.gatewayBytes)
        if attack.aimsAtWorker { size("worker", workerBytes, AbusePromise.gatewayBytes) }
        size("Redis", redisBytes, AbusePromise.redisBytes)
        for (probe, rest, attacked) in probes {
            if let first = attacked.failures.first {
                broken.append("\(attacked.failures.count) of \(attacked.count) \(probe.rawValue) probes failed: \(first)")
            }
            let added = attacked.percentile(99) - rest.percentile(99)
            // A log-in may wait behind those of the attacker; it only has to succeed.
            if probe != .login, added > AbusePromise.addedLatency * slack {
                broken.append(
                    "\(probe.rawValue) p99 \(BenchReport.rounded(added)) ms above rest, more than \(BenchReport.rounded(AbusePromise.addedLatency * slack))"
                )
            }
        }
        return broken
    }

    package var json: JSON {
        var members = JSONObject()
        members["attack"] = .string(attack.name)
        members["kept"] = .bool(broken.isEmpty)
        members["broken"] = .array(broken.map(JSON.string))
        members["units"] = .integer(units)
        members["refused"] = .integer(refused)
        members["gateway_bytes"] = .integer(gatewayBytes)
        members["worker_bytes"] = .integer(workerBytes)
        members["worker_bounded"] = .bool(attack.aimsAtWorker)
        members["redis_bytes"] = .integer(redisBytes)
        for (probe, rest, attacked) in probes {
            var object = JSONObject()
            object["count"] = .integer(attacked.count)
            object["failures"] = .integer(attacked.failures.count)
            if let first = attacked.failures.first { object["first_failure"] = .string(first) }
            for (name, measurement) in [("rest", rest), ("attacked", attacked)] {
                object["\(name)_p50_ms"] = .number(Self.plain(measurement.percentile(50)))
                object["\(name)_p99_ms"] = .number(Self.plain(measurement.percentile(99)))
                object["\(name)_steady_p99_ms"] = .number(Self.plain(measurement.steadyP99))
            }
            members[probe.rawValue] = .object(object)
        }
        return .object(members)
    }

    /// The result as one line.
    package var text: String {
        var parts = ["gateway +\(Self.megabytes(gatewayBytes))"]
        if attack.aimsAtWorker { parts.append("worker +\(Self.megabytes(workerBytes))") }
        parts.append("Redis +\(Self.megabytes(redisBytes))")
        for (probe, rest, attacked) in probes {
            parts.append(
                "\(probe.rawValue) p50 \(BenchReport.rounded(rest.percentile(50))) → \(BenchReport.rounded(attacked.percentile(50)))"
                    + " p99 \(BenchReport.rounded(rest.percentile(99))) → \(BenchReport.rounded(attacked.percentile(99))) ms")
        }
        parts.append("\(units) sent, \(refused) refused")
        let verdict = broken.isEmpty ? "kept" : "BROKEN"
        return "\(attack.name): \(verdict): \(parts.joined(separator: ", "))"
            + (broken.isEmpty ? "" : " (\(broken.joined(separator: "; ")))") + "\n"
    }

    private static func megabytes(_ bytes: Int) -> String { "\(BenchReport.rounded(Double(bytes) / 1_048_576)) MiB" }
    private static func plain(_ value: Double) -> String { ((value * 1_000).rounded() / 1_000).description }
}
