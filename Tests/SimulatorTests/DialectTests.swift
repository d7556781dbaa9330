import Contract
import JSONCodec
import Simulator
import Testing

/// The other dialects.
@Suite(.timeLimit(.minutes(10))) struct DialectTests {
    private static let generation = "/api/v1/services/aigc/text-generation/generation"
    private static let speech = "/api/v1/services/aigc/multimodal-generation/generation"

    private static func dashscope(_ model: String, parameters: String = #""incremental_output":true,"result_format":"message""#) -> String {
        let body = #"{"model":"\#(model)","input":{"messages":[{"role":"user","content":"hi"}]},"parameters":{\#(parameters)}}"#
        return RequestText.http("POST", generation, body: body, headers: ["X-DashScope-SSE: enable", "x-request-id: d"])
    }

    @Test func `DashScope: usage in every frame`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.dashscope("sim-n2-g1"))
            let response = try await client.response()
            let usage = #""request_id":"00000000-0000-4000-8000-000000000001"}"# + "\n\n"
            #expect(
                response.chunks == [
                    "id:1\nevent:result\n:HTTP_STATUS/200\n"
                        + #"data:{"output":{"choices":[{"message":{"content":" w0","role":"assistant"},"finish_reason":"null"}]},"#
                        + #""usage":{"total_tokens":11,"output_tokens":1,"input_tokens":10},"# + usage,
                    "id:2\nevent:result\n:HTTP_STATUS/200\n"
                        + #"data:{"output":{"choices":[{"message":{"content":" w1","role":"assistant"},"finish_reason":"null"}]},"#
                        + #""usage":{"total_tokens":12,"output_tokens":2,"input_tokens":10},"# + usage,
                    "id:3\nevent:result\n:HTTP_STATUS/200\n"
                        + #"data:{"output":{"choices":[{"message":{"content":"","role":"assistant"},"finish_reason":"stop"}]},"#
                        + #""usage":{"total_tokens":12,"output_tokens":2,"input_tokens":10},"# + usage,
                ])
        }
    }

    @Test func `DashScope: cumulative text unless incremental`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.dashscope("sim-n3-g0", parameters: ""))
            let texts = try await client.response().events.map { try JSON(parsing: $0)["output"]?["text"]?.string }
            #expect(texts == [" w0", " w0 w1", " w0 w1 w2", " w0 w1 w2"])
            try await client.send(Self.dashscope("sim-n0-g0-t-r", parameters: #""result_format":"message""#))
            let message = try JSON(parsing: try await client.response().events.last ?? "")["output"]?["choices"]?[0]?["message"]
            let arguments = message?["tool_calls"]?[0]?["function"]?["arguments"]?.string ?? ""
            #expect(try JSON(parsing: arguments)["days"] == 3)
        }
    }

    @Test func `DashScope: errors before and inside the stream`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.dashscope("sim-n1-g0-x"))
            let response = try await client.response()
            #expect(response.status == 200)
            #expect(response.chunks[1].hasPrefix("id:2\nevent:error\n:HTTP_STATUS/429\ndata:{\"code\":\"Throttling.AllocationQuota\","))
            try await client.send(Self.dashscope("sim-e403"))
            let refused = try await client.response()
            #expect(refused.status == 403)
            #expect(try refused.json()["code"] == "Workspace.AccessDenied")
            #expect(try refused.json()["request_id"]?.string != nil)
        }
    }

    @Test func `DashScope: tool calls, prefix and complete answers`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.dashscope("sim-n0-g0-t-r"))
            let messages = try await client.response().events.map { try JSON(parsing: $0)["output"]?["choices"]?[0]?["message"] }
            #expect(messages[0..<3].map { $0?["reasoning_content"]?.string } == [" r0", " r1", " r2"])
            let calls = messages.compactMap { $0?["tool_calls"]?[0] }
            #expect(calls.map { $0["id"]?.string ?? "-" } == ["call_1", "", "", "", ""])
            let arguments = calls.map { $0["function"]?["arguments"]?.string ?? "-" }.joined()
            #expect(try JSON(parsing: arguments)["city"] == "Hangzhou 杭州")

            let body =
                #"{"model":"sim-n4-g0","input":{"messages":[{"role":"user","content":"hi"},"#
                + #"{"role":"assistant","content":" w0 w1","partial":true}]},"parameters":{"result_format":"message"}}"#
            try await client.send(RequestText.http("POST", Self.generation, body: body))
            let whole = try await client.response().json()
            #expect(whole["output"]?["choices"]?[0]?["message"]?["content"] == " w2 w3")
            #expect(whole["usage"]?["output_tokens"] == 2)
        }
    }

    private static func anthropic(_ model: String, messages: String = #"[{"role":"user","content":"hi"}]"#, stream: Bool = true) -> String {
        let body = #"{"model":"\#(model)","max_tokens":100,"stream":\#(stream),"messages":\#(messages)}"#
        return RequestText.http("POST", "/v1/messages", body: body, headers: ["anthropic-version: 2023-06-01", "x-request-id: a"])
    }

    private func eventNames(_ response: Response) -> [String] {
        response.chunks.map { String($0.split(separator: "\n")[0].dropFirst(7)) }
    }

    @Test func `Anthropic: events by content block`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.anthropic("sim-n1-g1-r-t"))
            let response = try await client.response()
            #expect(
                eventNames(response)
                    == ["message_start", "ping", "content_block_start"] + Array(repeating: "content_block_delta", count: 4)
                    + ["content_block_stop", "content_block_start", "content_block_delta", "content_block_stop", "content_block_start"]
                    + Array(repeating: "content_block_delta", count: 5) + ["content_block_stop", "message_delta", "message_stop"])
            let events = try response.events.map { try JSON(parsing: $0) }
            #expect(zip(eventNames(response), events).allSatisfy { $1["type"]?.string == $0 })
            #expect(events[0]["message"]?["usage"]?["input_tokens"] == 10)
            #expect(events[3]["delta"] == ["type": "thinking_delta", "thinking": " r0"])
            let word =
                "event: content_block_delta\n"
                + #"data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" w0"}}"# + "\n\n"
            #expect(response.chunks[9] == word)
            #expect(events[11]["content_block"]?["name"] == "get_weather")
            let arguments = events[12..<17].map { $0["delta"]?["partial_json"]?.string ?? "-" }.joined()
            #expect(try JSON(parsing: arguments)["days"] == 3)
            #expect(events[18]["delta"]?["stop_reason"] == "tool_use")
            #expect(events[18]["usage"]?["output_tokens"] == 9)
        }
    }

    @Test func `Anthropic: errors, prefix and rules`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.anthropic("sim-n1-g0-x"))
            #expect(
                try await client.response().chunks.last
                    == "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n")
            try await client.send(Self.anthropic("sim-e529"))
            let overloaded = try await client.response()
            #expect(overloaded.status == 529)
            #expect(try overloaded.json()["error"]?["type"] == "overloaded_error")
            let prefix = #"[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":" w0"}]}]"#
            try await client.send(Self.anthropic("sim-n3-g0", messages: prefix, stream: false))
            let whole = try await client.response().json()
            #expect(whole["content"] == [["type": "text", "text": " w1 w2"]])
            #expect(whole["stop_reason"] == "end_turn")
            try await client.send(Self.anthropic("sim-n3-g0", messages: #"[{"role":"system","content":"hi"}]"#))
            let refused = try await client.response()
            #expect(refused.status == 400)
            #expect(try refused.json()["error"]?["type"] == "invalid_request_error")
        }
    }

    private static func ollama(_ model: String, more: String = "") -> String {
        let body = #"{"model":"\#(model)","messages":[{"role":"user","content":"hi"}]\#(more)}"#
        return RequestText.http("POST", "/api/chat", body: body, headers: ["x-request-id: o"])
    }

    @Test func `Ollama: one line per token`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.ollama("sim-n2-g1-r-t"))
            let response = try await client.response()
            #expect(response.header("content-type") == "application/x-ndjson")
            let lines = try response.body.split(separator: "\n").map { try JSON(parsing: String($0)) }
            #expect(lines[0..<3].map { $0["message"]?["thinking"]?.string } == [" r0", " r1", " r2"])
            #expect(lines[3..<5].map { $0["message"]?["content"]?.string } == [" w0", " w1"])
            #expect(lines[5]["message"]?["tool_calls"]?[0]?["function"]?["arguments"]?["days"] == 3)
            #expect(lines[0..<6].allSatisfy { $0["done"] == false })
            #expect(lines[6]["done"] == true)
            #expect(lines[6]["done_reason"] == "stop")
            #expect(lines[6]["prompt_eval_count"] == 10)
            #expect(lines[6]["eval_count"] == 10)
            #expect(lines.count == 7)
            let created = lines[0]["created_at"]?.string ?? ""
            #expect(created.utf8.count == 30 && created.hasSuffix("Z"))
        }
    }

    @Test func `Ollama: errors and complete answers`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(Self.ollama("sim-n1-g0-x"))
            #expect(try await client.response().chunks.last?.hasPrefix(#"{"error":""#) == true)
            try await client.send(Self.ollama("sim-e404"))
            let missing = try await client.response()
            #expect(missing.status == 404)
            #expect(try missing.json()["error"]?.string != nil)
            try await client.send(Self.ollama("sim-n2-g0", more: #","stream":false"#))
            let whole = try await client.response().json()
            #expect(whole["message"]?["content"] == " w0 w1")
            #expect(whole["done"] == true)
        }
    }

    @Test func `OpenAI speech: raw samples`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            func ask(_ model: String, _ format: String) -> String {
                let body = #"{"model":"\#(model)","voice":"alloy","input":"hello","response_format":"\#(format)"}"#
                return RequestText.http("POST", "/v1/audio/speech", body: body, headers: ["x-request-id: s"])
            }
            try await client.send(ask("sim-n3-g1", "pcm"))
            try await client.waitFor("0\r\n\r\n")
            let sizes = client.text.components(separatedBy: "00000780\r\n").count - 1
            #expect(sizes == 3)
            #expect(try await RecordedRequests.ended(port, tag: "s")["tokens"] == 3)

            let other = try await RawClient(port: port)
            try await other.send(ask("sim-n3", "mp3"))
            #expect(try await other.response().status == 400)
            try await other.send(ask("sim-n2-g0-x", "wav"))
            let text = await other.rest()
            #expect(text.contains("RIFF"))
            #expect(!text.contains("0\r\n\r\n"))
        }
    }

    @Test func `DashScope speech: samples in events`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            func ask(_ model: String) -> String {
                let body = #"{"model":"\#(model)","input":{"text":"你好。","voice":"Cherry"}}"#
                return RequestText.http("POST", Self.speech, body: body, headers: ["X-DashScope-SSE: enable", "x-request-id: v"])
            }
            try await client.send(ask("sim-n3-g1"))
            let response = try await client.response()
            let events = try response.events.map { try JSON(parsing: $0) }
            #expect(events.count == 4)
            #expect(events[0..<3].allSatisfy { $0["output"]?["audio"]?["data"]?.string?.utf8.count == 2560 })
            #expect(events.map { $0["output"]?["finish_reason"]?.string } == ["null", "null", "null", "stop"])
            // The second event has two data lines.
            #expect(response.chunks.map { $0.components(separatedBy: "\ndata:").count - 1 } == [1, 2, 1, 2])
            try await client.send(ask("qwen3-tts-flash"))
            #expect(try await client.response().events.count == 600 / 40 + 1)
            try await client.send(ask("sim-e429"))
            let refused = try await client.response()
            #expect(refused.header("retry-after") == "1")
            #expect(try refused.json()["code"] == "Throttling.AllocationQuota")
        }
    }

    @Test(arguments: ["dashscope", "anthropic", "ollama", "voice"]) func `the suffixes -k, -h and -z in every dialect`(dialect: String)
        async throws
    {
        try await withSimulator { port in
            func ask(_ model: String) -> String {
                switch dialect {
                case "dashscope": Self.dashscope(model)
                case "anthropic": Self.anthropic(model)
                case "ollama": Self.ollama(model)
                default:
                    RequestText.http(
                        "POST", Self.speech, body: #"{"model":"\#(model)","input":{"text":"a","voice":"b"}}"#,
                        headers: ["X-DashScope-SSE: enable", "x-request-id: v"])
                }
            }
            let tag = String(dialect.prefix(1))
            func clear() async throws {
                let client = try await RawClient(port: port)
                try await client.send(RequestText.http("DELETE", "/sim/requests"))
                _ = try await client.response()
                try await client.close()
            }
            for (model, how, tokens) in [
                ("sim-n5-g1-k2", "dropped", 2), ("sim-n5-g1-h3", "client_closed", 3), ("sim-n50-g1-z", "done", 50),
            ] {
                let client = try await RawClient(port: port)
                try await client.send(ask(model))
                if model.contains("-k") {
                    #expect(!(await client.rest().hasSuffix("0\r\n\r\n")))
                } else {
                    _ = try await RecordedRequests.request(port, tag: tag) { ($0["tokens"]?.integer ?? 0) >= 2 }
                    if model.contains("-h") { _ = try await RecordedRequests.request(port, tag: tag) { $0["tokens"] == 3 } }
                    try await client.close()
                }
                let record = try await RecordedRequests.ended(port, tag: tag)
                #expect(record["how"]?.string == how)
                #expect(record["tokens"]?.integer == tokens)
                try await clear()
            }
        }
    }
}

extension String {
    func components(separatedBy separator: String) -> [Substring] {
        var parts: [Substring] = []
        var rest = self[...]
        while let range = rest.firstRange(of: separator) {
            parts.append(rest[..<range.lowerBound])
            rest = rest[range.upperBound...]
        }
        return parts + [rest]
    }
}
