import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// The logs of both nodes about a job.
    @Suite struct LogTests {
        private static let json: [String: String?] = ["SLUICE_LOG_FORMAT": "json"]

        /// The lines about a job.
        private func lines(_ node: Node, of job: String) throws -> [JSON] {
            try lines(node).filter { $0["job"]?.string == job }
        }

        private func lines(_ node: Node) throws -> [JSON] {
            try node.log.split(separator: "\n").map { try JSON(parsing: String($0)) }
        }

        private static func trace(_ number: Int) -> String { "0af7651916cd43dd8448eb211c803\(100 + number)" }

        private static func header(_ number: Int) -> String { "00-\(trace(number))-b7ad6b7169203331-01" }

        @Test func `a trace context is passed to logs and upstream requests from every endpoint; an invalid one is ignored`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", Self.json)
                let gateway = try await lab.gateway("g1", Self.json)
                let authorization = ["authorization": "Bearer \(lab.key)"]
                let body: (String) -> JSON = { ["model": .string($0), "messages": [["role": "user", "content": "hi"]]] }
                let models = (0..<4).map { _ in lab.model("sim-n3-g1") }

                let completion = try await HTTPCall.post(
                    gateway.port, "/v1/chat/completions", body(models[0]),
                    headers: authorization.merging(["traceparent": Self.header(0)]) { $1 })
                #expect(completion.status == 200)
                let submitted = try await HTTPCall.post(
                    gateway.port, "/v1/jobs", ["request": body(models[1])],
                    headers: authorization.merging(["traceparent": Self.header(1)]) { $1 })
                #expect(submitted.status == 202)
                let client = try await WebSocketClient.connect(port: gateway.port, headers: ["traceparent": Self.header(2)])
                try await client.register(key: lab.key)
                #expect(try await client.request(model: models[2]).ended().end == .finished)
                let malformed = try await HTTPCall.post(
                    gateway.port, "/v1/chat/completions", body(models[3]),
                    headers: authorization.merging(["traceparent": Self.header(3).uppercased()]) { $1 })
                #expect(malformed.status == 200)

                for (number, model) in models.enumerated() {
                    let request = try await lab.endedRequest(model: model)
                    try await until("both nodes to log the job of \(model)") {
                        try !lines(worker, of: request.tag).isEmpty && !lines(gateway, of: request.tag).isEmpty
                    }
                    let logged = try lines(worker, of: request.tag) + lines(gateway, of: request.tag)
                    guard number < 3 else {
                        #expect(request.traceparent.isEmpty && logged.allSatisfy { $0["trace"] == nil })
                        continue
                    }
                    #expect(logged.allSatisfy { $0["trace"]?.string == Self.trace(number) }, "\(logged.map(\.text))")
                    #expect(request.traceparent.hasPrefix("00-\(Self.trace(number))-") && request.traceparent.hasSuffix("-01"))
                    #expect(!request.traceparent.contains("b7ad6b7169203331"), "the upstream request has its own span")
                }
                await client.close()
            }
        }

        @Test func `few lines per job, and the first line has the settings`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", Self.json)
                let gateway = try await lab.gateway("g1", Self.json.merging(["SLUICE_ADMIN_KEY": lab.key + lab.key]) { $1 })
                for (node, kind) in [(worker, "worker"), (gateway, "gateway")] {
                    let first = try #require(try lines(node).first)
                    #expect(first["message"]?.string == "\(kind) starting" && first["version"]?.string?.isEmpty == false)
                    #expect(
                        first["SLUICE_LEASE"]?.string == "\(Lab.lease.components.seconds)s"
                            && first["name"]?.string == (kind == "worker" ? "w1" : gateway.name)
                            || kind == "gateway")
                    #expect(first["SLUICE_LOG_FORMAT"] == "json")
                    let secrets = kind == "worker" ? ["SLUICE_UPSTREAM_KEY"] : ["SLUICE_API_KEYS", "SLUICE_ADMIN_KEY"]
                    for secret in secrets { #expect(first[secret] == "redacted", "\(first.text)") }
                }
                let client = try await lab.client(gateway)
                _ = try await client.request(model: lab.model("sim-n2-g1")).ended()
                let before = try (lines(worker).count, lines(gateway).count)
                let request = try await client.request(model: lab.model("sim-n200-g2"))
                #expect(try await request.ended().end == .finished)
                let job = try request.job
                try await until("the worker to log the end") {
                    try lines(worker, of: job).contains {
                        $0["message"] == "job ended" && $0["tokens"] == "200" && $0["state"] == "finished"
                    }
                }
                #expect(try lines(gateway, of: job).map { $0["message"]?.string } == ["job submitted"])
                let after = try (lines(worker).count, lines(gateway).count)
                #expect(after.0 - before.0 <= 3 && after.1 - before.1 <= 3, "\(before) → \(after)")
            }
        }
    }
}
