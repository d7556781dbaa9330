import Contract
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Limits on waiting jobs, and idempotent submissions.
    @Suite struct AdmissionTests {
        @Test func `a full queue is SERVER_BUSY until jobs have run`() async throws {
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

        @Test func `an Idempotency-Key submits one job, and a request_id one request of a session`() async throws {
            try await withLab { lab in
                let gateway = try await lab.gateway()
                let headers = ["authorization": "Bearer \(lab.key)", "idempotency-key": "once"]
                let body: JSON = ["request": ["model": .string(lab.model("sim-n3-g1"))]]
                let answers = [
                    try await HTTPCall.post(gateway.port, "/v1/jobs", body, headers: headers),
                    try await HTTPCall.post(gateway.port, "/v1/jobs", body, headers: headers),
                ]
                #expect(answers.allSatisfy { $0.status == 202 } && answers[0].json == answers[1].json)
                let other: JSON = ["request": ["model": "other"]]
                #expect(try await HTTPCall.post(gateway.port, "/v1/jobs", other, headers: headers).status == 409)
                let client = try await lab.client(gateway)
                for _ in 0..<2 { try await client.request(model: lab.model("sim-n3-g1"), id: "once") }
                #expect(try await client.expect("ERROR").payload["error_code"] == "DUPLICATE_REQUEST")
                for priority in ["interactive", "standard"] {
                    try await until("one in \(priority)") {
                        try await lab.redis.command("XLEN", "{sluice.0}:queue:\(priority)").integer == 1
                    }
                }
            }
        }

        @Test func `the waiting jobs of a tenant are limited over WebSocket and HTTP together`() async throws {
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
                // The limit applies to all classes and to both protocols.
                let end = try await client.request(model: lab.model("sim-n3-g1")).ended()
                #expect(end.end == .failed && end.last?["error_code"] == "SERVER_BUSY" && end.last?["retryable"] == true)
                let refused = try await post(lab.key)
                #expect(refused.status == 429 && refused.headers["retry-after"] != nil && refused.json?["error"]?["code"] == "server_busy")
                #expect(try await post(lab.otherKey).status == 202)
                // An interrupt or a worker frees a place.
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
