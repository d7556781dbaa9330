import Contract
import TestSupport
import Testing

/// An upstream's dialect, and where the simulator speaks it.
struct UpstreamKind: Sendable, CustomTestStringConvertible {
    let name: String
    let path: String
    /// The code of an error frame inside a 200, which each provider words in its own way.
    let frameCode: String
    var testDescription: String { name }

    static let all = [
        UpstreamKind(name: "openai", path: "/v1", frameCode: "upstream_error"),
        UpstreamKind(name: "dashscope", path: "/api/v1", frameCode: "rate_limited"),
        UpstreamKind(name: "anthropic", path: "", frameCode: "overloaded"),
        UpstreamKind(name: "ollama", path: "", frameCode: "upstream_protocol"),
    ]

    func settings(_ lab: Lab) -> [String: String?] {
        ["SLUICE_UPSTREAM_KIND": name, "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(lab.simulator.port)\(path)", "SLUICE_RETRIES": "1"]
    }
}

extension Journeys {
    /// Each dialect from end to end: an answer, an interrupt, every fault.
    @Suite struct UpstreamKindTests {
        @Test(arguments: UpstreamKind.all) func `an answer comes whole with the upstream's own figures`(kind: UpstreamKind) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", kind.settings(lab))
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
                    #expect(job.heard.problems.isEmpty, "\(job.heard.problems)")
                    #expect(try await job.log().events == job.heard.events)
                }
                #expect(plain.heard.terminal?["usage"]?["completion_tokens"] == 40 && plain.heard.terminal?["reason"] == "stop")
                #expect(thinking.heard.types.contains("reasoning"))
                #expect(calling.heard.terminal?["reason"] == "tool_calls")
                #expect(calling.heard.events.first { $0["type"] == "tool_call" }?["name"] == "get_weather")
                #expect(plain.heard.events.first { $0["type"] == "upstream" }?["name"]?.string == kind.name)
                #expect(try await plain.record()["upstream"] == kind.name)
                await front.close()
            }
        }

        @Test(arguments: UpstreamKind.all) func `an interrupt closes the upstream and says what was generated`(kind: UpstreamKind)
            async throws
        {
            try await withLab { lab in
                _ = try await lab.worker("w1", kind.settings(lab))
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n2000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(20)
                try await front.publish(interrupt: job.id)
                let end = try await job.ended(deadline: .seconds(5))
                #expect(end["type"] == "interrupted" && end["phase"] == "streaming", "\(end.text)")
                let upstream = try await lab.endedRequest(model: model)
                #expect(upstream.end == .clientClosed)
                let told = try #require(end["usage"]?["completion_tokens"]?.integer)
                #expect(told >= 20 && abs(told - upstream.tokens) <= 3, "told \(told), generated \(upstream.tokens)")
                // Where every frame says what was used, an interrupt's figures are the upstream's own.
                #expect(end["usage"]?["estimated"]?.bool == (kind.name != "dashscope"), "\(end.text)")
                #expect(job.heard.problems.isEmpty)
                await front.close()
            }
        }

        @Test(arguments: UpstreamKind.all) func `each fault ends in its one event`(kind: UpstreamKind) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", kind.settings(lab))
                let front = try await FrontEnd(lab.redis)
                let faults: [(script: String, code: String, tries: Int)] = [
                    ("e400", "invalid_request", 1), ("e401", "authentication", 1), ("e403", "permission", 1),
                    ("e404", "model_not_found", 1),
                    ("e429", "rate_limited", 2), ("e500", "upstream_error", 2), ("e503", "overloaded", 2),
                    ("k3", "upstream_disconnected", 1),
                    ("x", kind.frameCode, 1), ("d", "upstream_truncated", 1), ("k0", "upstream_disconnected", 2),
                ]
                var jobs: [(script: String, code: String, tries: Int, job: FollowedJob)] = []
                for fault in faults {
                    jobs.append(
                        (fault.script, fault.code, fault.tries, try await front.submit(model: lab.model("sim-n6-g2-\(fault.script)"))))
                }
                for (script, code, tries, job) in jobs {
                    let end = try await job.ended()
                    #expect(end["type"] == "failed" && end["code"]?.string == code, "\(script): \(end.text)")
                    if script.hasPrefix("e") {
                        #expect(end["upstream_status"]?.integer == Int(script.dropFirst()), "\(script): \(end.text)")
                    }
                    let log = try await job.log()
                    #expect(job.heard.problems.isEmpty && log.events == job.heard.events, "\(script): \(job.heard.problems)")
                    #expect(log.types.count { $0 == "failed" } == 1 && log.types.last == "failed", "\(script): \(log.types)")
                    let model = try #require(job.model)
                    #expect(try await lab.upstream().of(model: model).count == tries, "\(script)")
                    let record = try await job.record()
                    #expect(record["state"] == "failed" && record["code"] == code, "\(script): \(record)")
                }
                await front.close()
            }
        }
    }
}
