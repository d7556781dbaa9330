import Contract
import JSONCodec
import Simulator
import Testing

@Suite(.timeLimit(.minutes(10))) struct OpenAIChatTests {
    @Test func `a stream has tokens, finish reason, usage and [DONE]`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n5-g1-uABC", tag: "plain", usage: true))
            let response = try await client.response()
            #expect(response.status == 200)
            #expect(response.header("content-type") == "text/event-stream; charset=utf-8")
            #expect(try content(of: response) == words(0..<5))
            let events = response.events
            #expect(try JSON(parsing: events[0])["choices"]?[0]?["delta"]?["role"] == "assistant")
            #expect(try JSON(parsing: events[1])["object"] == "chat.completion.chunk")
            #expect(try JSON(parsing: events[1])["model"] == "sim-n5-g1-uABC")
            #expect(try JSON(parsing: events[6])["choices"]?[0]?["finish_reason"] == "stop")
            let usage: JSON = ["prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15]
            #expect(try JSON(parsing: events[7])["usage"] == usage)
            #expect(try JSON(parsing: events[7])["choices"] == [])
            #expect(events[8] == "[DONE]")
            #expect(events.count == 9)
            // Each event is one chunk.
            #expect(response.chunks.count == 9)
            let record = try await RecordedRequests.ended(port, tag: "plain")
            #expect(record["how"] == "done")
            #expect(record["tokens"] == 5)
            #expect(record["path"] == "/v1/chat/completions")
            let accept = record["accept_ns"]?.integer ?? 0
            let first = record["first_token_ns"]?.integer ?? 0
            let end = record["end_ns"]?.integer ?? 0
            #expect(accept > 0 && accept <= first && first + 4_000_000 <= end)
        }
    }

    @Test func `the token limit cuts a tool call`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            for stream in [true, false] {
                try await client.send(RequestText.chat("sim-n2-g0-t-l", stream: stream))
                let body = try await client.response().body
                #expect(body.contains(#""finish_reason":"length""#) && body.contains("angzhou") && !body.contains("days"))
            }
        }
    }

    @Test func `no usage unless requested`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g0"))
            let response = try await client.response()
            #expect(response.events.count == 5)
            #expect(!response.body.contains("usage"))
        }
    }

    @Test func `a complete answer takes the time of its tokens`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n10-g5-f20", stream: false, tag: "whole"))
            let response = try await client.response()
            let answer = try response.json()
            #expect(answer["object"] == "chat.completion")
            #expect(answer["choices"]?[0]?["message"]?["content"]?.string == words(0..<10))
            #expect(answer["choices"]?[0]?["finish_reason"] == "stop")
            #expect(answer["usage"]?["completion_tokens"] == 10)
            let record = try await RecordedRequests.ended(port, tag: "whole")
            #expect((record["end_ns"]?.integer ?? 0) - (record["accept_ns"]?.integer ?? 0) >= 70_000_000)
        }
    }

    @Test func `connections are persistent and support pipelining`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            for count in 1...3 {
                try await client.send(RequestText.chat("sim-n\(count)-g1"))
                #expect(try content(of: try await client.response()) == words(0..<count))
            }
            try await client.send(
                RequestText.chat("sim-n3-g2") + RequestText.chat("sim-n4-g0")
                    + RequestText.http("GET", "/healthz", headers: ["Connection: close"]))
            #expect(try content(of: try await client.response()) == words(0..<3))
            #expect(try content(of: try await client.response()) == words(0..<4))
            #expect(try await client.response().json()["total"] == 5)
            #expect(await client.rest() == "")
        }
    }

    @Test func `the delay of the first token does not delay the head`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n1-g0-f60000", tag: "late"))
            try await client.waitFor("assistant")
            #expect(!client.text.contains(" w0"))
            try await client.close()
            let record = try await RecordedRequests.ended(port, tag: "late")
            #expect(record["how"] == "client_closed")
            #expect(record["tokens"] == 0)
            #expect(record["first_token_ns"] == .null)
        }
    }

    @Test(arguments: [400, 401, 404, 429, 500, 503]) func `errors in the provider's format`(status: Int) async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n5-e\(status)", tag: "error"))
            let response = try await client.response()
            #expect(response.status == status)
            #expect(response.header("retry-after") == (status == 429 || status == 503 ? "1" : nil))
            #expect(try response.json()["error"]?["message"]?.string != nil)
            #expect(try response.json()["error"]?["code"]?.string != nil)
            let record = try await RecordedRequests.ended(port, tag: "error")
            #expect(record["how"] == "error")
            #expect(record["tokens"] == 0)
            // The connection remains usable.
            try await client.send(RequestText.chat("sim-n1-g0"))
            #expect(try await client.response().status == 200)
        }
    }

    @Test(arguments: [0, 3, 5]) func `a dropped connection ends in the middle of the body`(after tokens: Int) async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n5-g1-k\(tokens)", tag: "drop"))
            let text = await client.rest()
            #expect(text.contains("assistant"))
            #expect(!text.contains(" w\(tokens)\""))
            #expect(tokens == 0 || text.contains(" w\(tokens - 1)\""))
            #expect(!text.contains("[DONE]") && !text.hasSuffix("0\r\n\r\n"))
            let record = try await RecordedRequests.ended(port, tag: "drop")
            #expect(record["how"] == "dropped")
            #expect(record["tokens"]?.integer == tokens)
        }
    }

    @Test func `silence lasts until the client disconnects`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n5-g1-h2", tag: "silent"))
            try await client.waitFor(" w1")
            let running = try await RecordedRequests.request(port, tag: "silent") { $0["tokens"] == 2 }
            #expect(running["how"] == .null)
            try await client.close()
            let record = try await RecordedRequests.ended(port, tag: "silent")
            #expect(record["how"] == "client_closed")
            #expect(record["tokens"] == 2)
        }
    }

    @Test func `a burst is sent together`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n6-g60000-b3"))
            try await client.waitFor(" w2")
            #expect(!client.text.contains(" w3"))
        }
    }

    @Test func `an error frame inside the answer`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g1-x", tag: "frame"))
            let response = try await client.response()
            #expect(response.status == 200)
            #expect(try JSON(parsing: response.events[3])["error"]?["code"] == "overloaded")
            #expect(response.events.count == 4)
            #expect(try await RecordedRequests.ended(port, tag: "frame")["how"] == "error")
        }
    }

    @Test func `an end without finish reason and [DONE]`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g1-d", tag: "cut"))
            let response = try await client.response()
            #expect(try content(of: response) == words(0..<2))
            #expect(response.events.count == 3)
            #expect(!response.body.contains("stop"))
            #expect(try await RecordedRequests.ended(port, tag: "cut")["how"] == "done")
        }
    }

    @Test func `a tool call in fragments`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            let tools = #","tools":[{"type":"function","function":{"name":"set_lamp","parameters":{}}}]"#
            try await client.send(RequestText.chat("sim-n1-g0-t", more: tools))
            let response = try await client.response()
            var arguments = ""
            var ids: [String] = []
            for event in response.events where event != "[DONE]" {
                guard let call = try JSON(parsing: event)["choices"]?[0]?["delta"]?["tool_calls"]?[0] else { continue }
                #expect(call["index"] == 0)
                ids.append(call["id"]?.string ?? "-")
                if ids.count == 1 { #expect(call["function"]?["name"] == "set_lamp") }
                arguments += call["function"]?["arguments"]?.string ?? ""
            }
            #expect(ids.count == 5)
            #expect(ids[0].hasPrefix("call_"))
            #expect(ids.dropFirst().allSatisfy { $0 == "" })
            #expect(try JSON(parsing: arguments)["city"] == "Hangzhou 杭州")
            #expect(response.body.contains(#""finish_reason":"tool_calls""#))
        }
    }

    @Test func `reasoning comes first`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g0-r", tag: "think", usage: true))
            let response = try await client.response()
            let deltas = try response.events.filter { $0 != "[DONE]" }.map { try JSON(parsing: $0)["choices"]?[0]?["delta"] }
            #expect(deltas[1...3].map { $0?["reasoning_content"]?.string } == [" r0", " r1", " r2"])
            #expect(deltas[4...5].map { $0?["content"]?.string } == [" w0", " w1"])
            #expect(response.body.contains(#""completion_tokens":5"#))
            #expect(try await RecordedRequests.ended(port, tag: "think")["tokens"] == 5)
        }
    }

    @Test(arguments: [
        (#"[{"role":"user","content":"go"},{"role":"assistant","content":" w0 w1 w2","partial":true}]"#, "", 3),
        (#"[{"role":"user","content":"go"},{"role":"assistant","content":" w0 w1","prefix":true}]"#, "", 2),
        (#"[{"role":"user","content":"go"},{"role":"assistant","content":" w0"}]"#, #","continue_final_message":true"#, 1),
        (#"[{"role":"user","content":"go"},{"role":"assistant","content":" w0 w1"}]"#, "", 0),
        (#"[{"role":"user","content":"go"},{"role":"assistant","content":" w0 w1 w2 w3 w4","partial":true}]"#, "", 5),
    ]) func `a prefix is continued`(messages: String, more: String, first: Int) async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n5-g0", tag: "prefix", messages: messages, more: more))
            #expect(try content(of: try await client.response()) == words(first..<5))
            #expect(try await RecordedRequests.ended(port, tag: "prefix")["tokens"]?.integer == 5 - first)
        }
    }

    @Test func `any other model answers with a readable paragraph`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(
                RequestText.chat("qwen-plus", tag: "prose", messages: #"[{"role":"user","content":"why is the sky blue?"}]"#))
            try await client.waitFor("sky")
            try await client.close()
            #expect(try await RecordedRequests.ended(port, tag: "prose")["how"] == "client_closed")
        }
    }

    @Test func `a token limit truncates a paragraph`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("qwen-plus", stream: false, more: #","max_tokens":2"#))
            let answer = try await client.response().json()
            #expect(answer["choices"]?[0]?["finish_reason"] == "length")
            #expect(answer["usage"]?["completion_tokens"] == 2)
            try await client.send(RequestText.chat("sim-n1000000", stream: false))
            #expect(try await client.response().status == 400)
        }
    }

    /// Complete answers for faults that a stream reports in frames.
    @Test func `faults of complete answers`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g0-x", stream: false))
            let error = try await client.response()
            #expect(error.status == 200)
            #expect(try error.json()["error"]?["code"] == "overloaded")
            try await client.send(RequestText.chat("sim-n2-g0-d", stream: false))
            #expect(try await client.response().json()["choices"]?[0]?["finish_reason"] == .null)
            try await client.send(RequestText.chat("sim-n1-g0-t-r", stream: false))
            let message = try await client.response().json()["choices"]?[0]?["message"]
            #expect(message?["reasoning_content"] == " r0 r1 r2")
            #expect(message?["tool_calls"]?[0]?["function"]?["name"] == "get_weather")
            try await client.send(RequestText.chat("sim-n5-g1-k2", stream: false, tag: "whole-drop"))
            #expect(await client.rest() == "")
            #expect(try await RecordedRequests.ended(port, tag: "whole-drop")["tokens"] == 2)
        }
    }
}
