import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Hostile requests over HTTP, and probes during them.
    @Suite struct HostileClientTests {
        @Test func `event ids at the limits of integers are rejected`() async throws {
            try await withLab(simulator: false) { lab in
                let gateway = try await lab.gateway()
                let headers = ["authorization": "Bearer \(lab.key)"]
                let accepted = try await HTTPCall.post(gateway.port, "/v1/jobs", ["request": [:]], headers: headers)
                let id = try #require(accepted.json?["id"]?.string)
                for text in [
                    "1-9223372036854775807", "9223372036854775807-0", "9223372036854775807-9223372036854775807", "1-9007199254740992",
                    "9007199254740992-0", "18446744073709551616-0", "1--1", "-1-0", "1-+1", "1",
                ] {
                    let answer = try await HTTPCall.get(
                        gateway.port, "/v1/jobs/\(id)/events", headers: headers.merging(["last-event-id": text]) { $1 })
                    #expect(answer.status == 400, "\(text): \(answer.status)")
                }
                // An id after all events is accepted: the terminal event is delivered in any case.
                let ahead = try await RawHTTPConnection(gateway.port)
                try await ahead.request("GET", "/v1/jobs/\(id)/events", headers: ["Last-Event-ID: 9007199254740991-0"], key: lab.key)
                try await ahead.wait(for: "text/event-stream")
                try await lab.redis.command("DEL", "{sluice.0}:job:\(id)", "{sluice.0}:queue:standard")
                try await ahead.wait(for: "event: failed")
                try await ahead.close()
                #expect(try await gateway.get("/readyz").status == 200)
            }
        }

        @Test func `probes are answered when all connections are in use`() async throws {
            try await withLab(simulator: false) { lab in
                // Its connection limit is 2 × 1 + 1,000.
                let gateway = try await lab.gateway("g1", ["SLUICE_MAX_SOCKETS": "1", "SLUICE_HANDSHAKE_TIMEOUT": "60s"])
                var taken: [RawHTTPConnection] = []
                // More than the reserve for probes.
                for _ in 0..<1_300 { taken.append(try await RawHTTPConnection(gateway.port)) }
                for _ in 0..<20 {
                    #expect(try await gateway.get("/healthz").json == ["status": "up"])
                    #expect(try await gateway.get("/readyz").json == ["status": "ready"])
                }
                let other = try await gateway.get("/v1/models", headers: ["authorization": "Bearer \(lab.key)"])
                #expect(other.status == 503 && other.json?["error"]?["code"] == "too_many_connections")
                for connection in taken { try await connection.close() }
                try await until("connections to be free again") {
                    try await gateway.get("/v1/models", headers: ["authorization": "Bearer \(lab.key)"]).status == 200
                }
            }
        }

        @Test func `without a free file descriptor a gateway stops accepting, reports it once and recovers`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let request = try await client.request(model: lab.model("sim-n300-g10"))
                try await request.tokens(3)
                let process = try #require(gateway.processID)
                let limited = try await Program.run("prlimit", ["--pid", "\(process)", "--nofile=100:100"])
                #expect(limited.succeeded, "\(limited.output)")
                var taken: [RawHTTPConnection] = []
                for _ in 0..<200 { taken.append(try await RawHTTPConnection(gateway.port)) }
                try await until("no descriptor to be free") { gateway.log.contains("connections cannot be accepted") }
                #expect(try await request.ended().end == .finished)
                for connection in taken { try await connection.close() }
                try await until("connections to be accepted again") { (try? await gateway.get("/healthz"))?.status == 200 }
                #expect(gateway.log.components(separatedBy: "connections cannot be accepted").count == 2)
                // One try per second, not one per turn of the event loop.
                let errors = try await gateway.scrape()["sluice_accept_errors_total"] ?? 0
                #expect(errors > 0 && errors < 200, "\(errors)")
            }
        }

        @Test func `SIGHUP ends no node, and a gateway reloads its keys`() async throws {
            try await withLab { lab in
                let keys = lab.folder.file("keys")
                try "tenant-a:\(lab.key)\n".write(toFile: keys, atomically: true, encoding: .utf8)
                let gateway = try await lab.gateway("g1", ["SLUICE_API_KEYS": nil, "SLUICE_API_KEYS_FILE": keys])
                let plain = try await lab.gateway("g2")
                let worker = try await lab.worker("w1")
                func status(_ key: String) async throws -> Int {
                    try await gateway.get("/v1/models", headers: ["authorization": "Bearer \(key)"]).status
                }
                #expect(try await status(lab.otherKey) == 401)
                try "tenant-a:\(lab.key)\ntenant-b:\(lab.otherKey)\n".write(toFile: keys, atomically: true, encoding: .utf8)
                let nodes = [gateway, plain, worker, lab.simulator]
                for node in nodes { kill(try #require(node.processID), SIGHUP) }
                try await until("the new key to be known") { try await status(lab.otherKey) == 200 }
                try "tenant-a:short\n".write(toFile: keys, atomically: true, encoding: .utf8)
                for node in nodes { kill(try #require(node.processID), SIGHUP) }
                try await until("the fault to be logged") { gateway.log.contains("keys and accounts reload failed") }
                #expect(try await status(lab.key) == 200)
                try await until("the others to log the signal") {
                    plain.log.contains("no files to reload") && worker.log.contains("nothing to reload")
                }
                // The simulator logs nothing, but still answers.
                _ = try await lab.upstream()
                for node in nodes { #expect(node.isRunning, "\(node.name)") }
                let log = gateway.log
                #expect(log.contains("log-in failed") && !log.contains(lab.otherKey))
            }
        }

        @Test func `the dashboard accepts heartbeats with extreme values`() async throws {
            try await withLab(simulator: false) { lab in
                let gateway = try await lab.gateway("g1", ["SLUICE_ADMIN_KEY": "admin-key-0123456789"])
                let connection = try await lab.redis.connect()
                for (number, figure) in ["9223372036854775807", "9223372036854775807", "-9223372036854775808", "1e308", "inf", "nan", "x"]
                    .enumerated()
                {
                    let name = "hostile-\(number)"
                    try await connection.send("ZADD", "{sluice}:workers", "\(number + 1)", name)
                    var command = ["HSET", "{sluice}:worker:\(name)"]
                    for field in [
                        "capacity", "in_flight", "started", "tokens", "finished", "interrupted", "failed", "tokens_per_second",
                        "jobs_per_second", "queue_wait", "first_token", "interrupt_close", "slowest",
                    ] { command += [field, figure] }
                    try await connection.send(command)
                    try await connection.send("SADD", "{sluice}:gateways", name)
                    try await connection.send(
                        ["HSET", "{sluice}:gateway:\(name)", "in_flight", figure, "sockets", figure, "capacity", figure, "started", figure])
                }
                await connection.close()
                let answer = try await gateway.get("/dashboard/snapshot", headers: ["authorization": "Bearer admin-key-0123456789"])
                #expect(answer.status == 200 && answer.json?["snapshot"]?["workers"] != nil && answer.body.utf8.count < 64 << 10)
                #expect(try await gateway.get("/readyz").status == 200)
            }
        }
    }
}
