import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Redis loses a queue, has no memory left, or is demoted to a replica.
    @Suite struct RedisFaultTests {
        @Test(arguments: ["DEL", "SET"])
        func `a queue that is deleted or overwritten affects only its own jobs`(_ command: String) async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_LEASE": "1s"])
                let front = try await FrontEnd(lab.redis)
                var jobs: [FollowedJob] = []
                // A stream of three leases.
                for priority in JobClass.allCases {
                    jobs.append(try await front.submit(model: lab.model("sim-n300-g10"), class: priority.rawValue))
                }
                for job in jobs { try await job.tokens(5) }
                let queue = "{sluice.0}:queue:batch"
                try await lab.redis.command("DEL", queue)
                if command == "SET" { try await lab.redis.command("SET", queue, "x") }
                for job in jobs {
                    #expect(try await job.ended()["type"] == "finished")
                    let log = try await job.log()
                    #expect(log.problems.isEmpty && log.attempts == [1], "\(log.problems)")
                }
                #expect(try await worker.scrape()["sluice_leases_lost_total"] == 0)
                try await lab.redis.command("DEL", queue)
                try await worker.ready()
                #expect(try await front.submit(model: lab.model("sim-n3-g1"), class: "batch").ended()["type"] == "finished")
                await front.close()
            }
        }

        @Test func `at the memory limit jobs that are interrupted or too late end`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_TOTAL_TIMEOUT": "4s"])
                let front = try await FrontEnd(lab.redis)
                let stopped = try await front.submit(model: lab.model("sim-n5000-g10"))
                let late = try await front.submit(model: lab.model("sim-n5000-g10"))
                for job in [stopped, late] { try await job.tokens(5) }
                // Less than an empty Redis needs.
                try await lab.redis.command("CONFIG", "SET", "maxmemory", "1mb")
                try await front.publish(interrupt: stopped.id)
                #expect(try await stopped.ended()["type"] == "interrupted")
                let end = try await late.ended()
                #expect(end["type"] == "failed" && end["code"] == "total_timeout", "\(end.text)")
                #expect(try await stopped.record()["state"] == "interrupted")
                #expect(try await late.record()["state"] == "failed")
                try await lab.redis.command("CONFIG", "SET", "maxmemory", "0")
                try await worker.ready()
                await front.close()
            }
        }

        @Test func `a demoted primary delays requests and fails none`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                func refused() async throws -> Int {
                    let text = try await lab.redis.command("INFO", "errorstats").string ?? ""
                    let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("errorstat_READONLY:count=") }
                    return line.flatMap { Int($0.dropFirst("errorstat_READONLY:count=".count)) } ?? 0
                }
                let client = try await lab.client(gateway)
                let running = try await client.request(model: lab.model("sim-n5000-g10"))
                try await running.tokens(3)
                // Nothing listens on port 1, so that the data stays as it is.
                try await lab.redis.command("REPLICAOF", "127.0.0.1", "1")
                let before = try await refused()
                let path = try "/v1/jobs/\(running.job)/interrupt"
                let headers = ["authorization": "Bearer \(lab.key)"]
                async let job = HTTPCall.post(
                    gateway.port, "/v1/jobs",
                    ["request": ["model": .string(lab.model("sim-n3-g1")), "messages": [["role": "user", "content": "hi"]]]],
                    headers: headers)
                async let stop = HTTPCall.post(gateway.port, path, ["reason": "USER_STOP"], headers: headers)
                try await until("Redis to refuse both requests") { try await refused() >= before + 2 }
                try await lab.redis.command("REPLICAOF", "NO", "ONE")
                let (accepted, stopped) = try await (job, stop)
                #expect(accepted.status == 202, "\(accepted.status) \(accepted.body)")
                #expect(stopped.status == 200, "\(stopped.status) \(stopped.body)")
                #expect(try await running.ended().end == .interrupted)
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
            }
        }
    }
}
