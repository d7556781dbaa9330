import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Upstreams that reject, fail or send invalid responses: one failed event and one error for the client.
    @Suite struct UpstreamFaultTests {
        @Test func `each fault has one error code on the socket and in the log`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_RETRIES": "1"])
                let client = try await lab.client(lab.gateway())
                let faults: [(script: String, codes: Set<String>, error: String)] = [
                    ("sim-n5-g1-e400", ["invalid_request"], "UPSTREAM_ERROR"), ("sim-n5-g1-e401", ["authentication"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e403", ["permission"], "UPSTREAM_ERROR"), ("sim-n5-g1-e404", ["model_not_found"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e429", ["rate_limited"], "RATE_LIMITED"), ("sim-n5-g1-e500", ["upstream_error"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-e503", ["overloaded"], "SERVER_BUSY"), ("sim-n20-g5-k3", ["upstream_disconnected"], "UPSTREAM_ERROR"),
                    ("sim-n5-g1-d", ["upstream_truncated"], "UPSTREAM_ERROR"),
                ]
                let timeouts: [(script: String, codes: Set<String>, error: String)] = [
                    ("sim-n20-g1-h3", ["idle_timeout"], "REQUEST_TIMEOUT"),
                    ("sim-n5-g1-f60000", ["first_token_timeout"], "REQUEST_TIMEOUT"),
                ]
                var requests: [ClientRequest] = []
                for fault in faults { requests.append(try await client.request(model: lab.model(fault.script))) }
                for request in requests { try await request.ended() }
                // Short timeouts only for the faults that end in one, because a busy machine may delay the others.
                worker.terminate()
                _ = try await worker.ended()
                _ = try await lab.worker(
                    "w2", ["SLUICE_RETRIES": "0", "SLUICE_FIRST_TOKEN_TIMEOUT": "6s", "SLUICE_IDLE_TIMEOUT": "1s"])
                for fault in timeouts { requests.append(try await client.request(model: lab.model(fault.script))) }
                for (fault, request) in zip(faults + timeouts, requests) {
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
                // Retried only before the first output and if it may help.
                let tries = try await lab.upstream()
                for (script, count) in [("e400", 1), ("e401", 1), ("e429", 2), ("e500", 2), ("e503", 2), ("k3", 1), ("h3", 1)] {
                    #expect(tries.requests.count { $0.model.contains("-\(script)-") } == count, "\(script)")
                }
            }
        }

        @Test func `an upstream that refuses connections is unreachable`() async throws {
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker("w1", ["SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(Ports.free())/v1", "SLUICE_RETRIES": "1"])
                let client = try await lab.client(lab.gateway())
                let request = try await client.request(model: "sim-n5-g1")
                let end = try await request.ended()
                #expect(end.last?["error_code"] == "UPSTREAM_ERROR" && end.last?["error_detail"] == "upstream_unreachable")
                #expect(end.last?["retryable"] == true && client.problems.isEmpty)
            }
        }

        @Test func `extreme usage and incomplete answers end the job and not the worker`() async throws {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            let token =
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":\(Int.max),\"completion_tokens\":\(Int.max)}}\n\n"
            let upstream = try await CannedUpstream.start([
                .init(word: "m-huge", bytes: head + token + token + "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"),
                .init(word: "m-open", bytes: head + token + token, closes: false),
                // An incomplete head, an incomplete line, and comments without content.
                .init(word: "m-head", bytes: "HTTP/1.1 200 OK\r\ncontent-ty", closes: false),
                .init(word: "m-line", bytes: head + "data: {\"choices\":[{\"del", closes: false),
                .init(word: "m-ping", bytes: head + String(repeating: ": ping\n\n", count: 1_000), closes: false),
            ])
            try await withLab(simulator: false) { lab in
                let worker = try await lab.worker("w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_RETRIES": "0"])
                let front = try await FrontEnd(lab.redis)
                func fields(_ model: String) -> [(String, JSON)] {
                    let messages: JSON = [["role": "user", "content": "hi"]]
                    return [
                        ("request", ["model": .string(model), "messages": messages, "max_tokens": .integer(Int.min)]),
                        ("first_token_timeout_ms", 2_000),
                    ]
                }
                let huge = try await front.submit(model: "m-huge", fields: fields("m-huge"))
                let open = try await front.submit(model: "m-open", fields: fields("m-open"))
                let silent = ["m-head", "m-line", "m-ping"]
                var jobs: [FollowedJob] = []
                for model in silent { jobs.append(try await front.submit(model: model, fields: fields(model))) }
                #expect(try await huge.ended()["type"] == "finished")
                try await until("its first token") { open.received.text == "aa" }
                try await front.publish(interrupt: open.id)
                let end = try await open.ended()
                #expect(end["type"] == "interrupted" && end["saved_tokens"] == nil, "\(end.text)")
                for (model, job) in zip(silent, jobs) {
                    let end = try await job.ended()
                    #expect(end["code"] == "first_token_timeout" && job.received.problems.isEmpty, "\(model): \(end.text)")
                }
                #expect(worker.isRunning)
                await front.close()
            }
            await upstream.close()
        }

        @Test func `an invalid response is a protocol failure, and redirects are not followed`() async throws {
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
    /// The job's id. A request that failed at once has received none; then it is taken from the upstream request.
    fileprivate func jobOrTag(_ upstream: CannedUpstream) throws -> String {
        if let job = checker.job { return job }
        let line = upstream.requests.last?.split(separator: "\r\n").first { $0.lowercased().hasPrefix("x-request-id:") }
        return String(try #require(line).split(separator: " ").last ?? "")
    }
}
