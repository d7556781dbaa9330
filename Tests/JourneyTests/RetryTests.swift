import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Retries before the first token, and timeouts of jobs.
    @Suite struct RetryTests {
        private static func milliseconds(from now: Duration) -> JSON {
            .integer(Int(Date().timeIntervalSince1970 * 1_000) + Int(now.components.seconds * 1_000))
        }

        @Test func `a job after its deadline is not started, and a running one is closed`() async throws {
            try await withLab { lab in
                let front = try await FrontEnd(lab.redis)
                let late = lab.model("sim-n5-g1")
                let waiting = try await front.submit(model: late, fields: [("deadline_ms", Self.milliseconds(from: .seconds(-1)))])
                _ = try await lab.worker("w1")
                let end = try await waiting.ended()
                #expect(end["type"] == "failed" && end["code"] == "deadline_exceeded" && waiting.received.types == ["failed"])
                let model = lab.model("sim-n5000-g10")
                let running = try await front.submit(model: model, fields: [("deadline_ms", Self.milliseconds(from: .seconds(6)))])
                try await running.tokens(5)
                let cut = try await running.ended()
                #expect(cut["type"] == "failed" && cut["code"] == "deadline_exceeded" && running.received.problems.isEmpty)
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                #expect(try await lab.upstream().of(model: late).isEmpty)
                let endless = lab.model("sim-n5000-g10")
                let stopped = try await front.submit(model: endless, fields: [("total_timeout_ms", 2_000)])
                #expect(try await stopped.ended()["code"] == "total_timeout")
                #expect(try await lab.endedRequest(0, model: endless).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `retries are limited and not used after the first output`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "2"])
                let front = try await FrontEnd(lab.redis)
                for (script, tries, code) in [("sim-n5-g1-e500", 3, "upstream_error"), ("sim-n50-g1-k10", 1, "upstream_disconnected")] {
                    let model = lab.model(script)
                    let end = try await front.submit(model: model).ended()
                    #expect(end["type"] == "failed" && end["code"]?.string == code)
                    #expect(try await lab.upstream().of(model: model).count == tries, "\(script)")
                }
                await front.close()
            }
        }

        @Test func `a retry waits for Retry-After instead of the shorter back-off`() async throws {
            let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"
            let upstream = try await CannedUpstream.start([.init(word: "m-limited", bytes: refusal)])
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker("w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_RETRIES": "1"])
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: "m-limited")
                #expect(try await job.ended()["code"] == "rate_limited" && upstream.requests.count == 2)
                let record = try await job.record()
                let times = ["claimed_ms", "finished_ms"].compactMap { record[$0].flatMap { Int($0) } }
                try #require(times.count == 2)
                // The back-off alone would be at most a quarter of that.
                #expect(times[1] - times[0] >= 1_000, "\(times)")
                await front.close()
            }
            await upstream.close()
        }
    }
}
