import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Short runs of `sluice bench`, whose reports are checked for their form and plausible values.
    @Suite struct BenchTests {
        private func bench(_ arguments: [String], _ environment: [String: String] = [:]) async throws -> JSON {
            let outcome = try await Executable.run(["bench"] + arguments + ["--json"], environment: environment, deadline: .seconds(150))
            #expect(outcome.status == .exited(0), "\(arguments): \(outcome.errors)")
            #expect(outcome.output.split(separator: "\n").count == 1 && outcome.errors.contains("bench: "), "one line, progress beside it")
            return try JSON(parsing: outcome.output)
        }

        /// Checks the order of percentiles and the count.
        private func check(_ report: JSON, _ name: String, count: ClosedRange<Int>) throws {
            let times = try #require(report[name], "\(name) in \(report.text)")
            let values = try ["p50_us", "p90_us", "p99_us", "max_us"].map { try #require(times[$0]?.double, "\(name).\($0)") }
            #expect(values == values.sorted() && values[0] > 0 && values[3] < 60_000_000, "\(name): \(values)")
            #expect(count.contains(try #require(times["count"]?.integer)), "\(name): \(times.text)")
        }

        private func figure(_ report: JSON, _ name: String, in range: ClosedRange<Double>) throws {
            let value = try #require(report[name]?.double, "\(name) in \(report.text)")
            #expect(range.contains(value), "\(name): \(value)")
        }

        private func check(_ kind: String, _ report: JSON, processes: Bool) throws {
            #expect(report["measurement"]?.string == kind && report["settings"]?.object != nil)
            switch kind {
            case "relay":
                try figure(report, "tokens_offered_per_second", in: 400...400)
                try figure(report, "tokens_achieved_per_second", in: 40...480)
                try figure(report, "streams_broken", in: 0...0)
                try figure(report, "redis_commands_per_token", in: 0.01...20)
                if processes { try figure(report, "worker_cpu_us_per_token", in: 0.1...100_000) }
                try check(report, "lateness", count: 1...2_000)
                try check(report, "direct_lateness", count: 1...100_000)
            case "interrupt":
                try check(report, "bare_pubsub", count: 1...100_000)
                for way in ["redis", "websocket"] {
                    for time in ["closed", "last_frame"] { try check(report, "\(way)_\(time)", count: 1...5) }
                    try figure(report, "\(way)_missed", in: 0...0)
                }
            case "jobs":
                try figure(report, "jobs_per_second", in: 5...1_000_000)
                try figure(report, "jobs_failed", in: 0...0)
                try check(report, "job", count: 1...1_000_000)
            case "sweep":
                try figure(report, "redis_commands_per_second", in: 0...1_000)
                try figure(report, "requests_refused", in: 0...0)
                if processes { try figure(report, "redis_cpu_percent", in: 0...100) }
            case "fairness":
                try figure(report, "jain", in: 0...1)
                for wait in ["wait_alone_p50", "wait_p50", "wait_max"] { try figure(report, wait, in: 0...60_000) }
            case "sockets":
                try figure(report, "opened_per_second", in: 1...100_000)
                try figure(report, "gateway_resident_kb_per_socket", in: -10_000...10_000)
            case "voice":
                for figure in ["voice_frames_after", "missed"] { try self.figure(report, figure, in: 0...0) }
                for time in ["first_voice", "clause", "synthesis", "voice_relay", "acknowledged", "closed", "last_frame"] {
                    try check(report, time, count: 1...10)
                }
            default:
                for way in ["direct", "redis", "websocket"] { try check(report, way, count: 1...10) }
            }
        }

        private static let quick: [(kind: String, arguments: [String])] = [
            ("relay", ["--streams", "20", "--gap", "50", "--seconds", "1", "--warm-up", "0.3"]),
            ("interrupt", ["--count", "5", "--gap", "10", "--load", "5x20"]),
            ("jobs", ["--in-flight", "8", "--seconds", "0.5", "--warm-up", "0.2"]), ("ttft", ["--count", "10"]),
            ("sweep", ["--workers", "2", "--running", "4", "--waiting", "40", "--seconds", "1", "--warm-up", "1"]),
            ("voice", ["--count", "10", "--together", "5"]), ("fairness", ["--backlog", "60", "--probes", "3", "--seconds", "1"]),
            ("sockets", ["--count", "60", "--seconds", "0.5"]),
        ]

        @Test func `each measurement uses its own deployment`() async throws {
            // Two at a time, because each mostly waits.
            for pair in [Self.quick[..<2], Self.quick[2..<4], Self.quick[4..<6], Self.quick[6...]] {
                try await withThrowingTaskGroup(of: (String, JSON).self) { tasks in
                    for (kind, arguments) in pair {
                        tasks.addTask { (kind, try await bench([kind, "--self-contained"] + arguments)) }
                    }
                    for try await (kind, report) in tasks { try check(kind, report, processes: true) }
                }
            }
        }

        @Test func `measures a running deployment`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let environment = [
                    "SLUICE_REDIS_URL": lab.redis.url, "SLUICE_API_KEY": lab.key, "SLUICE_UPSTREAM_URL": lab.upstreamURL,
                    "SLUICE_LISTEN": "127.0.0.1:\(gateway.port)",
                ]
                let process = try #require(worker.processID)
                for (kind, arguments) in Self.quick[1...1] {
                    let report = try await bench([kind, "--process", "worker=\(process)"] + arguments, environment)
                    try check(kind, report, processes: true)
                }
                // Nothing continues to run.
                try await until("no running request") { try await lab.upstream().running == 0 }
            }
        }
    }
}
