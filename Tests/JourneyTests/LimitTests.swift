import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// Points 5 and 6: deadlines and admission.
    @Suite struct LimitTests {
        private static func milliseconds(from now: Duration) -> JSON {
            .integer(Int(Date().timeIntervalSince1970 * 1_000) + Int(now.components.seconds * 1_000))
        }

        @Test func `past its deadline a job is not dialled, and one that runs is closed`() async throws {
            try await withLab { lab in
                let front = try await FrontEnd(lab.redis)
                let late = lab.model("sim-n5-g1")
                let waiting = try await front.submit(model: late, fields: [("deadline_ms", Self.milliseconds(from: .seconds(-1)))])
                _ = try await lab.worker("w1")
                let end = try await waiting.ended()
                #expect(end["type"] == "failed" && end["code"] == "deadline_exceeded" && waiting.heard.types == ["failed"])
                let model = lab.model("sim-n5000-g10")
                let running = try await front.submit(model: model, fields: [("deadline_ms", Self.milliseconds(from: .seconds(2)))])
                try await running.tokens(5)
                let cut = try await running.ended(deadline: .seconds(5))
                #expect(cut["type"] == "failed" && cut["code"] == "deadline_exceeded" && running.heard.problems.isEmpty)
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                #expect(try await lab.upstream().of(model: late).isEmpty)
                await front.close()
            }
        }

        @Test func `tries are used up and no more, and never after output began`() async throws {
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

        @Test func `a full queue is SERVER_BUSY, and has room again when jobs have run`() async throws {
            try await withLab { lab in
                let client = try await lab.client(lab.gateway("g1", ["SLUICE_QUEUE_MAX": "3"]))
                var waiting: [ClientRequest] = []
                for _ in 0..<3 { waiting.append(try await client.request(model: lab.model("sim-n3-g1"))) }
                try await until("a full queue") { try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 3 }
                let end = try await client.request(model: lab.model("sim-n3-g1")).ended()
                #expect(end.end == .failed && end.last?["error_code"] == "SERVER_BUSY" && end.last?["retryable"] == true)
                _ = try await lab.worker("w1")
                for request in waiting { #expect(try await request.ended().end == .finished) }
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                #expect(client.problems.isEmpty)
            }
        }

        @Test func `one tenant's waiting jobs are limited, on sockets and over HTTP together, and no other tenant's`() async throws {
            try await withLab { lab in
                let gateway = try await lab.gateway("g1", ["SLUICE_QUEUE_MAX_PER_TENANT": "3"])
                let client = try await lab.client(gateway)
                func post(_ key: String) async throws -> HTTPAnswer {
                    let body: JSON = ["request": ["model": .string(lab.model("sim-n3-g1"))]]
                    return try await HTTPCall.post(gateway.port, "/v1/jobs", body, headers: ["authorization": "Bearer \(key)"])
                }
                var waiting: [ClientRequest] = []
                for _ in 0..<2 { waiting.append(try await client.request(model: lab.model("sim-n3-g1"))) }
                try await until("two that wait") { try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 2 }
                #expect(try await post(lab.key).status == 202)
                // Full, whatever the class and the way.
                let end = try await client.request(model: lab.model("sim-n3-g1")).ended()
                #expect(end.end == .failed && end.last?["error_code"] == "SERVER_BUSY" && end.last?["retryable"] == true)
                let refused = try await post(lab.key)
                #expect(refused.status == 429 && refused.headers["retry-after"] != nil && refused.json?["error"]?["code"] == "server_busy")
                #expect(try await post(lab.otherKey).status == 202)
                // An interrupt makes room, and so does a worker.
                #expect(try await client.interrupt(.string(waiting[0].id))["status"] == "SUCCESS")
                #expect(try await post(lab.key).status == 202)
                #expect(try await post(lab.key).status == 429)
                _ = try await lab.worker("w1")
                #expect(try await waiting[1].ended().end == .finished)
                try await until("all to have been taken") {
                    try await lab.redis.command("EXISTS", "{sluice.0}:waiting:tenant-a").integer == 0
                }
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                #expect(client.problems.isEmpty)
            }
        }
    }
}
