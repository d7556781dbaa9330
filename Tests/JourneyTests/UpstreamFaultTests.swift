import Contract
import TestSupport
import Testing

extension Journeys {
    /// An upstream that refuses, fails or talks rubbish: one failed event, one error to the client.
    @Suite struct UpstreamFaultTests {
        @Test func `each fault has its code, once, on the socket and in the log`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "1", "SLUICE_FIRST_TOKEN_TIMEOUT": "1s", "SLUICE_IDLE_TIMEOUT": "1s"])
                let client = try await lab.client(lab.gateway())
                let faults: [(script: String, codes: Set<String>, error: String)] = [
                    ("sim-n5-g1-e400", ["invalid_request"], "UPSTREAM_ERROR"), ("sim-n5-g1-e401", ["authentication"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e403", ["permission"], "UPSTREAM_ERROR"), ("sim-n5-g1-e404", ["model_not_found"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e429", ["rate_limited"], "RATE_LIMITED"), ("sim-n5-g1-e500", ["upstream_error"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e503", ["overloaded"], "SERVER_BUSY"), ("sim-n20-g5-k3", ["upstream_disconnected"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-d", ["upstream_truncated"], "UPSTREAM_ERROR"), ("sim-n20-g1-h3", ["idle_timeout"], "REQUEST_TIMEOUT"),
                    ("sim-n5-g1-f9000", ["first_token_timeout"], "REQUEST_TIMEOUT"),
                ]
                var requests: [ClientRequest] = []
                for fault in faults { requests.append(try await client.request(model: lab.model(fault.script))) }
                for (fault, request) in zip(faults, requests) {
                    let end = try await request.ended()
                    #expect(end.end == .failed, "\(fault.script): \(end.last?.text ?? "")")
                    #expect(end.last?["error_code"]?.string == fault.error, "\(fault.script): \(end.last?.text ?? "")")
                    #expect(fault.codes.contains(end.last?["error_detail"]?.string ?? ""), "\(fault.script): \(end.last?.text ?? "")")
                }
                for request in try await lab.upstream().requests {
                    let log = try await lab.log(request.tag, model: nil)
                    #expect(
                        log.problems.isEmpty && log.end == "failed" && log.types.count { $0 == "failed" } == 1,
                        "\(request.model): \(log.types)")
                    #expect(try await lab.record(request.tag)["state"] == "failed")
                }
                #expect(client.problems.isEmpty)
                // Tried again only where nothing had been said yet and it may help.
                let tries = try await lab.upstream()
                for (script, count) in [("e400", 1), ("e401", 1), ("e429", 2), ("e500", 2), ("e503", 2), ("k3", 1), ("h3", 1)] {
                    #expect(tries.requests.count { $0.model.contains("-\(script)-") } == count, "\(script)")
                }
            }
        }

        @Test func `one that refuses connections fails the job as unreachable`() async throws {
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker("w1", ["SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(Ports.free())/v1", "SLUICE_RETRIES": "1"])
                let client = try await lab.client(lab.gateway())
                let request = try await client.request(model: "sim-n5-g1")
                let end = try await request.ended()
                #expect(end.last?["error_code"] == "UPSTREAM_ERROR" && end.last?["error_detail"] == "upstream_unreachable")
                #expect(end.last?["retryable"] == true && client.problems.isEmpty)
            }
        }

        @Test func `rubbish is a protocol failure, and no redirect is followed`() async throws {
            let page = "<html>"
            let elsewhere = try await CannedUpstream.start([.init(word: "HTTP/1.1", bytes: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")])
            let upstream = try await CannedUpstream.start([
                .init(
                    word: "m-page", bytes: "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: \(page.utf8.count)\r\n\r\n\(page)"
                ),
                .init(word: "m-broken", bytes: "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"choices\":[{\"del\n\n"),
                .init(
                    word: "m-moved", bytes: "HTTP/1.1 307 Go\r\nlocation: \(elsewhere.url)/chat/completions\r\ncontent-length: 0\r\n\r\n"),
                .init(word: "m-noise", bytes: "\u{1}\u{2}\u{3} what?\r\n\r\n"),
                .init(
                    word: "m-endless",
                    bytes: "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: \(String(repeating: "x", count: 3 << 20))\n\n"),
            ])
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker("w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_RETRIES": "0"])
                let client = try await lab.client(lab.gateway())
                for model in ["m-page", "m-broken", "m-moved", "m-noise", "m-endless"] {
                    let request = try await client.request(model: model)
                    let end = try await request.ended()
                    #expect(end.end == .failed && end.last?["error_code"] == "UPSTREAM_ERROR", "\(model): \(end.last?.text ?? "")")
                    #expect(
                        ["upstream_protocol", "upstream_truncated"].contains(end.last?["error_detail"]?.string),
                        "\(model): \(end.last?.text ?? "")")
                    let log = try await lab.log(request.jobOrTag(upstream), model: nil)
                    #expect(
                        log.problems.isEmpty && log.end == "failed" && log.types.count { $0 == "failed" } == 1, "\(model): \(log.types)")
                }
                #expect(elsewhere.requests.isEmpty, "the key must not be carried elsewhere")
                #expect(upstream.requests.allSatisfy { $0.contains("Bearer \(lab.upstreamKey)") })
                #expect(client.problems.isEmpty)
            }
            await upstream.close()
            await elsewhere.close()
        }
    }
}

extension ClientRequest {
    /// The job's id, which a request that failed at once was never told: the worker sends it upstream.
    fileprivate func jobOrTag(_ upstream: CannedUpstream) throws -> String {
        if let job = judge.job { return job }
        let line = upstream.requests.last?.split(separator: "\r\n").first { $0.lowercased().hasPrefix("x-request-id:") }
        return String(try #require(line).split(separator: " ").last ?? "")
    }
}
