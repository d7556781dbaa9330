import Contract
import FoundationEssentials
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Two tool calls of one answer, from the client's functions to its `function_call` frames.
    @Suite struct ToolCallTests {
        private static func stream(_ word: String, _ body: String, type: String = "text/event-stream") -> CannedUpstream.Answer {
            .init(
                word: word,
                bytes:
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: \(type)\r\ncontent-length: \(body.utf8.count)\r\n\r\n\(body)")
        }

        private static func events(_ data: [String]) -> String { data.map { "data: \($0)\n\n" }.joined() }

        /// Interleaved fragments of both calls, as sent by providers. An argument's name is split.
        private static let fragments = [
            #"[{"index":0,"id":"call_a","type":"function","function":{"name":"weather","arguments":"{\"ci"}}]"#,
            #"[{"index":1,"id":"call_b","type":"function","function":{"name":"clock","arguments":""}}]"#,
            #"[{"index":0,"id":"","type":"function","function":{"arguments":"ty\": \"杭州\"}"}}]"#,
            #"[{"index":1,"id":"","type":"function","function":{"arguments":"{\"zone\": [8, null]}"}}]"#,
        ]

        private static let answers: [CannedUpstream.Answer] = [
            stream(
                "\"m-openai\"",
                events(fragments.map { "{\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":\($0)}}]}" })
                    + events([#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#, "[DONE]"])),
            stream(
                "\"m-dashscope\"",
                fragments.map {
                    "data:{\"output\":{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":\($0)},"
                        + "\"finish_reason\":\"null\"}]},\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}\n\n"
                }.joined()
                    + "data:{\"output\":{\"choices\":[{\"message\":{\"content\":\"\"},\"finish_reason\":\"tool_calls\"}]}}\n\n"),
            stream(
                "\"m-anthropic\"",
                events([
                    #"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#,
                    #"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"call_a","name":"weather","input":{}}}"#,
                    #"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"city\": \"杭"}}"#,
                    #"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"州\"}"}}"#,
                    #"{"type":"content_block_stop","index":0}"#,
                    #"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"call_b","name":"clock","input":{}}}"#,
                    #"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"zone\":[8,null]}"}}"#,
                    #"{"type":"content_block_stop","index":1}"#,
                    #"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
                    #"{"type":"message_stop"}"#,
                ])),
            stream(
                "\"m-ollama\"",
                #"{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"weather","arguments":{"city":"杭州"}}},"#
                    + #"{"function":{"name":"clock","arguments":{"zone":[8,null]}}}]},"done":false}"# + "\n"
                    + #"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":9}"#
                    + "\n", type: "application/x-ndjson"),
            stream(
                "\"m-broken\"",
                events([
                    #"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"weather","arguments":"{\"city\": "}}]}}]}"#,
                    #"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#, "[DONE]",
                ])),
        ]

        private static let wanted: [JSON] = [
            ["name": "weather", "parameters": ["city": "杭州"]], ["name": "clock", "parameters": ["zone": [8, .null]]],
        ]

        /// Functions with a list of parameters and with a schema.
        private static let functions: JSON = [
            [
                "name": "weather", "description": "How it is outside",
                "parameters": [["name": "city", "type": "str", "description": "Where", "required": true]],
            ], ["name": "clock", "parameters": ["type": "object", "properties": ["zone": ["type": "array"]]]],
        ]

        private static func upstreams(_ url: String) -> String {
            """
            upstreams:
              - {name: openai, url: \(url)/v1, models: [m-openai, m-broken]}
              - {name: dashscope, kind: dashscope, url: \(url)/api/v1, models: [m-dashscope]}
              - {name: anthropic, kind: anthropic, url: \(url), models: [m-anthropic]}
              - {name: ollama, kind: ollama, url: \(url), models: [m-ollama]}
            """
        }

        @Test func `two tool calls of one answer are delivered over WebSocket and HTTP from every kind of upstream`() async throws {
            let upstream = try await CannedUpstream.start(Self.answers)
            try await withLab(simulator: false) { lab in
                let file = lab.folder.file("upstreams.yaml")
                try Self.upstreams("http://127.0.0.1:\(upstream.port)").write(toFile: file, atomically: true, encoding: .utf8)
                _ = try await lab.worker(
                    "w1", ["SLUICE_UPSTREAM_URL": nil, "SLUICE_UPSTREAM_KEY": nil, "SLUICE_UPSTREAMS_FILE": file])
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway, fields: [("function_calling", Self.functions)])
                for kind in UpstreamKind.all {
                    let end = try await client.request(model: "m-\(kind.name)").ended()
                    #expect(end.end == .finished && end.last?["finish_reason"] == "tool_calls", "\(kind.name): \(end.last?.text ?? "")")
                    let calls = end.calls.map { call -> JSON in ["name": call["name"] ?? .null, "parameters": call["parameters"] ?? .null] }
                    #expect(calls == Self.wanted, "\(kind.name): \(end.calls.map(\.text))")
                    #expect(Set(end.calls.compactMap { $0["call_id"]?.string }).count == 2, "\(kind.name): every call has an id")
                    let asked = try #require(upstream.requests.last)
                    for word in ["\"weather\"", "How it is outside", "\"required\":[\"city\"]", "\"clock\"", "\"zone\""] {
                        #expect(asked.contains(word), "\(kind.name) was asked without \(word)")
                    }
                    try await Self.overHTTP(gateway, lab.key, "m-\(kind.name)", modern: kind.name != "ollama")
                }
                let broken = try await client.request(model: "m-broken").ended()
                #expect(broken.end == .failed && broken.last?["error_detail"] == "upstream_protocol" && broken.calls.isEmpty)
                #expect(client.problems.isEmpty)
            }
            await upstream.close()
        }

        /// - Parameter modern: whether to use `tools`; false: the older `functions`.
        private static func overHTTP(_ gateway: Node, _ key: String, _ model: String, modern: Bool) async throws {
            let function: JSON = ["name": "weather", "parameters": ["type": "object", "properties": [:]]]
            for streams in [false, true] {
                var body = JSONObject()
                body["model"] = .string(model)
                body["messages"] = [["role": "user", "content": "hi"]]
                body["stream"] = .bool(streams)
                if modern { body["tools"] = [["type": "function", "function": function]] } else { body["functions"] = [function] }
                let answer = try await HTTPCall.post(
                    gateway.port, "/v1/chat/completions", .object(body), headers: ["authorization": "Bearer \(key)"])
                #expect(answer.status == 200, "\(model): \(answer.body)")
                let choices: [JSON] =
                    streams
                    ? answer.body.split(separator: "\n").filter { $0.hasPrefix("data: {") }
                        .compactMap { try? JSON(parsing: $0.dropFirst(6).utf8)["choices"]?[0] }
                    : [answer.json?["choices"]?[0] ?? .null]
                let calls = choices.flatMap { $0[streams ? "delta" : "message"]?["tool_calls"]?.array ?? [] }
                #expect(choices.compactMap { $0["finish_reason"]?.string } == ["tool_calls"], "\(model): \(answer.body)")
                #expect(calls.map { $0["function"]?["name"]?.string } == ["weather", "clock"], "\(model): \(answer.body)")
                let arguments = try calls.map { try JSON(parsing: ($0["function"]?["arguments"]?.string ?? "").utf8) }
                #expect(arguments == Self.wanted.compactMap { $0["parameters"] }, "\(model): \(arguments)")
                #expect(Set(calls.compactMap { $0["id"]?.string }).count == 2, "\(model): each call has an id of its own")
                if streams { #expect(calls.map { $0["index"]?.integer } == [0, 1], "\(model)") }
            }
        }
    }
}
