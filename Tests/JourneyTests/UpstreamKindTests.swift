import Contract
import JSONCodec
import NIOHTTP1
import TestSupport
import Testing

/// A kind of upstream and its path in the simulator.
struct UpstreamKind: Sendable, CustomTestStringConvertible {
    let name: String
    let path: String
    /// The failure code of an error frame inside a response with status 200.
    let frameCode: String
    var testDescription: String { name }

    static let all = [
        UpstreamKind(name: "openai", path: "/v1", frameCode: "overloaded"),
        UpstreamKind(name: "dashscope", path: "/api/v1", frameCode: "rate_limited"),
        UpstreamKind(name: "anthropic", path: "", frameCode: "overloaded"),
        UpstreamKind(name: "ollama", path: "", frameCode: "upstream_protocol"),
    ]

    func settings(_ lab: Lab) -> [String: String?] {
        ["SLUICE_UPSTREAM_KIND": name, "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(lab.simulator.port)\(path)", "SLUICE_RETRIES": "1"]
    }
}

extension Journeys {
    /// All kinds of upstreams: answers, interrupts and faults.
    @Suite struct UpstreamKindTests {
        @Test(arguments: UpstreamKind.all) func `an answer is complete and has the upstream's usage`(kind: UpstreamKind) async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", kind.settings(lab))
                let front = try await FrontEnd(lab.redis)
                let plain = try await front.submit(model: lab.model("sim-n40-g2"))
                let thinking = try await front.submit(model: lab.model("sim-n10-g2-r"))
                let tool: JSON = [
                    "type": "function",
                    "function": ["name": "get_weather", "description": "weather", "parameters": ["type": "object", "properties": [:]]],
                ]
                let model = lab.model("sim-n10-g2-t")
                let calling = try await front.submit(
                    model: model,
                    fields: [("request", ["model": .string(model), "messages": [["role": "user", "content": "hi"]], "tools": [tool]])])
                for job in [plain, thinking, calling] {
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && end["usage"]?["estimated"] == false, "\(end.text)")
                    #expect(job.received.problems.isEmpty, "\(job.received.problems)")
                    #expect(try await job.log().events == job.received.events)
                }
                #expect(plain.received.terminal?["usage"]?["completion_tokens"] == 40 && plain.received.terminal?["reason"] == "stop")
                #expect(thinking.received.types.contains("reasoning"))
                #expect(calling.received.terminal?["reason"] == "tool_calls")
                #expect(calling.received.events.first { $0["type"] == "tool_call" }?["name"] == "get_weather")
                #expect(plain.received.events.first { $0["type"] == "upstream" }?["name"]?.string == kind.name)
                #expect(try await plain.record()["upstream"] == kind.name)
                // Several tokens per write, a delay before the first, and a model that continues after a disconnect give the same events.
                // They reuse one connection.
                let opened = try await worker.scrape()[#"sluice_upstream_connections_total{use="opened"}"#]
                for script in ["sim-n40-g2-b8", "sim-n5-g1-f50", "sim-n5-g1-z"] {
                    let job = try await front.submit(model: lab.model(script))
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && job.received.types.count { $0 == "finished" } == 1, "\(script): \(end.text)")
                    #expect(job.received.problems.isEmpty, "\(job.received.problems)")
                }
                let scrape = try await worker.scrape()
                #expect(scrape[#"sluice_upstream_connections_total{use="opened"}"#] == opened)
                #expect(scrape.sum("sluice_upstream_connections_total") == 6)
                // The token limit cuts the call; the connection stays open after the end.
                for (script, reason) in [("sim-n5-g1-t-l", "length"), ("sim-n5-g1-o", "stop")] {
                    let job = try await front.submit(model: lab.model(script))
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && end["reason"]?.string == reason, "\(script): \(end.text)")
                    #expect(job.received.text == SimulatorText.tokens(5) && !job.received.types.contains("tool_call"))
                    #expect(job.received.problems.isEmpty, "\(job.received.problems)")
                }
                await front.close()
            }
        }

        @Test func `Anthropic's count of tokens is passed on`() async throws {
            let counter = try await CannedUpstream.start([
                .init(
                    word: "POST /v1/messages/count_tokens",
                    bytes:
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\nconnection: close\r\n\r\n{\"input_tokens\":2095}"
                )
            ])
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker(
                    "w1", ["SLUICE_UPSTREAM_KIND": "anthropic", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(counter.port)"])
                let gateway = try await lab.gateway()
                let count = try await until("the worker to report what it counts") { () -> HTTPAnswer? in
                    let answer = try await HTTPCall.send(
                        .POST, gateway.port, "/v1/messages/count_tokens", headers: ["authorization": "Bearer \(lab.key)"],
                        body: #"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
                    return answer.headers["x-sluice-token-count"] == "exact" ? answer : nil
                }
                #expect(count.json == ["input_tokens": 2095])
            }
            await counter.close()
        }

        @Test(arguments: UpstreamKind.all) func `an interrupt closes the upstream and reports the generated tokens`(kind: UpstreamKind)
            async throws
        {
            try await withLab { lab in
                _ = try await lab.worker("w1", kind.settings(lab))
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n2000-g10")
                let request: JSON = ["model": .string(model), "messages": [["role": "user", "content": "hi"]], "max_tokens": 2000]
                let job = try await front.submit(model: model, fields: [("request", request)])
                try await job.tokens(20)
                try await front.publish(interrupt: job.id)
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["phase"] == "streaming", "\(end.text)")
                let upstream = try await lab.endedRequest(model: model)
                #expect(upstream.end == .clientClosed)
                let counted = try #require(end["usage"]?["completion_tokens"]?.integer)
                #expect((20...upstream.tokens + 3).contains(counted), "counted \(counted), generated \(upstream.tokens)")
                // The saved tokens are the rest of the requested ones; the delivered tokens are those in the log.
                #expect(end["saved_tokens"]?.integer == 2_000 - counted, "\(end.text)")
                let delivered = try #require(end["delivered_tokens"]?.integer)
                #expect(delivered <= counted && job.received.text == SimulatorText.tokens(delivered), "\(end.text)")
                // With usage in every frame, the usage of an interrupt is the upstream's.
                #expect(end["usage"]?["estimated"]?.bool == (kind.name != "dashscope"), "\(end.text)")
                #expect(job.received.problems.isEmpty)
                await front.close()
            }
        }

        @Test(arguments: UpstreamKind.all) func `each fault has one terminal event`(kind: UpstreamKind) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", kind.settings(lab))
                let front = try await FrontEnd(lab.redis)
                let faults: [(script: String, code: String, tries: Int)] = [
                    ("e400", "invalid_request", 1), ("e401", "authentication", 1), ("e403", "permission", 1),
                    ("e404", "model_not_found", 1),
                    ("e429", "rate_limited", 2), ("e500", "upstream_error", 2), ("e503", "overloaded", 2),
                    ("k3", "upstream_disconnected", 1),
                    ("x", kind.frameCode, 1), ("d", "upstream_truncated", 1), ("k0", "upstream_disconnected", 2),
                    ("h3", "idle_timeout", 1), ("h0", "first_token_timeout", 2), ("f9000", "first_token_timeout", 2),
                ]
                var jobs: [(script: String, code: String, tries: Int, job: FollowedJob)] = []
                for fault in faults {
                    // Only for faults that end in a timeout, because a busy machine may delay the others.
                    let limit: [(String, JSON)] =
                        switch fault.code {
                        case "idle_timeout": [("idle_timeout_ms", 400)]
                        case "first_token_timeout": [("first_token_timeout_ms", 2_000)]
                        default: []
                        }
                    let job = try await front.submit(model: lab.model("sim-n6-g2-\(fault.script)"), fields: limit)
                    jobs.append((fault.script, fault.code, fault.tries, job))
                }
                for (script, code, tries, job) in jobs {
                    let end = try await job.ended()
                    #expect(end["type"] == "failed" && end["code"]?.string == code, "\(script): \(end.text)")
                    if script.hasPrefix("e") {
                        #expect(end["upstream_status"]?.integer == Int(script.dropFirst()), "\(script): \(end.text)")
                    }
                    let log = try await job.log()
                    #expect(job.received.problems.isEmpty && log.events == job.received.events, "\(script): \(job.received.problems)")
                    #expect(log.types.count { $0 == "failed" } == 1 && log.types.last == "failed", "\(script): \(log.types)")
                    let model = try #require(job.model)
                    #expect(try await lab.upstream().of(model: model).count == tries, "\(script)")
                    let record = try await job.record()
                    #expect(record["state"] == "failed" && record["code"] == code, "\(script): \(record)")
                }
                await front.close()
            }
        }

        /// Anthropic rejects a prefix that ends with white space.
        @Test func `a text that ends with white space is continued`() async throws {
            func events(_ data: [String]) -> String { data.map { "data: \($0)\n\n" }.joined() }
            func delta(_ text: String) -> String {
                #"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\#(text)"}}"#
            }
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
            let start = events([#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#])
            let end = [
                #"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#, #"{"type":"message_stop"}"#,
            ]
            let upstream = try await CannedUpstream.start([
                .init(
                    word: #"{"role":"assistant","content":[{"type":"text","text":"Hello"}]}"#,
                    bytes: head + start + events([delta(" \\nworld")] + end)),
                .init(word: #""text":"hello""#, bytes: head + start + events([delta("Hello \\n")]), closes: false),
            ])
            try await withLab(simulator: false) { lab in
                let settings: [String: String?] = [
                    "SLUICE_UPSTREAM_KIND": "anthropic", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(upstream.port)",
                    "SLUICE_UPSTREAM_PREFIX": "prefix", "SLUICE_RETRIES": "0",
                ]
                let workers = try await lab.workers(2, settings)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: "m")
                try await until("the first words") { job.received.text == "Hello \n" }
                try await lab.owner(of: job.id, among: workers).0.kill9()
                #expect(try await job.ended()["type"] == "finished")
                #expect(
                    job.received.text == "Hello \nworld" && job.received.types.contains("resumed"),
                    "\(job.received.text) \(job.received.types)")
                #expect(job.received.problems.isEmpty && upstream.requests.count == 2)
                await front.close()
            }
            await upstream.close()
        }
    }
}
