import Contract
import JSONCodec
import Testing

@testable import CurlTransport
@testable import Upstream

/// What a body holds for Anthropic's API only, and what other upstreams get of it.
struct ExtensionTests {
    private static let body = """
        {"model":"m","anthropic":{"service_tier":"auto","cache_control":{"type":"ephemeral"}},"reasoning_effort":"low",
         "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}},"messages":[
         {"role":"system","content":[{"type":"text","text":"a","anthropic":{"cache_control":{"type":"ephemeral"}}},{"type":"text","text":"b"}]},
         {"role":"user","content":[{"type":"text","text":"q","anthropic":{"cache_control":{"type":"ephemeral"}}}]},
         {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"so"}],
          "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"anthropic":{"cache_control":{"type":"ephemeral"}}}]},
         {"role":"assistant","content":[{"type":"redacted_thinking","data":"d"}],
          "tool_calls":[{"id":"d","type":"function","function":{"name":"f","arguments":"{}"}}]},
         {"role":"tool","tool_call_id":"c","content":[{"type":"text","text":"[error]\\nno","anthropic":{"cache_control":{"type":"ephemeral"}}}],
          "anthropic":{"is_error":true}},
         {"role":"tool","tool_call_id":"d","content":"ok"}],
         "tools":[{"type":"function","function":{"name":"f","strict":true},"anthropic":{"cache_control":{"type":"ephemeral"}}}]}
        """

    private static func request(_ kind: UpstreamConfiguration.Kind, _ body: String) throws -> JSON {
        let request = GenerationRequest(jobID: JobID("p0-job")!, body: try #require(try JSON(parsing: body).object))
        let upstream = UpstreamConfiguration.at("http://host", kind: kind)
        return try JSON(parsing: upstream.adapter.request(request, on: upstream).body)
    }

    @Test func `Anthropic gets thinking, cache points, errors and hints`() throws {
        let sent = try Self.request(.anthropic, Self.body)
        let cache: JSON = ["type": "ephemeral"]
        #expect(sent["service_tier"] == "auto" && sent["cache_control"] == cache)
        #expect(sent["output_config"] == ["effort": "low", "format": ["type": "json_schema", "schema": ["type": "object"]]])
        #expect(sent["system"] == [["type": "text", "text": "a", "cache_control": cache], ["type": "text", "text": "b"]])
        #expect(sent["tools"]?[0]?["strict"] == true && sent["tools"]?[0]?["cache_control"] == cache)
        #expect(sent["messages"]?[0]?["content"] == [["type": "text", "text": "q", "cache_control": cache]])
        #expect(
            sent["messages"]?[1]?["content"] == [
                ["type": "thinking", "thinking": "hm", "signature": "s"], ["type": "text", "text": "so"],
                ["type": "tool_use", "id": "c", "name": "f", "input": [:], "cache_control": cache],
                ["type": "redacted_thinking", "data": "d"], ["type": "tool_use", "id": "d", "name": "f", "input": [:]],
            ])
        #expect(
            sent["messages"]?[2]?["content"] == [
                [
                    "type": "tool_result", "tool_use_id": "c", "cache_control": cache, "is_error": true,
                    "content": [["type": "text", "text": "no"]],
                ], ["type": "tool_result", "tool_use_id": "d", "content": [["type": "text", "text": "ok"]]],
            ])
    }

    @Test func `other upstreams get none of it, and calls in one message`() throws {
        let sent = try Self.request(.openai, Self.body)
        #expect(!sent.text.contains("anthropic") && !sent.text.contains("cache_control") && !sent.text.contains("thinking"))
        let messages = sent["messages"]
        #expect(messages?[0] == ["role": "system", "content": "a\n\nb"] && messages?[1] == ["role": "user", "content": "q"])
        #expect(messages?[2]?["content"] == "so" && messages?[2]?["tool_calls"]?.array?.map { $0["id"] } == ["c", "d"])
        #expect(messages?[3] == ["role": "tool", "tool_call_id": "c", "content": "[error]\nno"] && messages?.array?.count == 5)
        // DashScope has no effort.
        let plain = Self.body.replacing(#""reasoning_effort":"low","#, with: "")
        #expect(try !Self.request(.dashscope, plain).text.contains("anthropic"))
        let ollama = try Self.request(.ollama, Self.body)
        #expect(ollama["think"] == "low" && ollama["messages"]?[2]?["content"] == "so" && !ollama.text.contains("cache_control"))
    }

    @Test(arguments: [
        (UpstreamConfiguration.Kind.anthropic, #""reasoning_effort":"minimal""#, "reasoning_effort"),
        (.ollama, #""reasoning_effort":"xhigh""#, "reasoning_effort"),
        (.anthropic, #""anthropic":{"container":"c"}"#, "anthropic.container"),
    ]) func `what an upstream does not have is refused by name`(_ kind: UpstreamConfiguration.Kind, _ member: String, _ name: String) {
        let failure = #expect(throws: Failure.self) {
            try Self.request(kind, #"{"model":"m","messages":[{"role":"user","content":"hi"}],\#(member)}"#)
        }
        #expect(failure?.code == .unsupportedParameter && failure?.message.contains("\"\(name)\"") == true)
    }

    @Test(arguments: [UpstreamConfiguration.Kind.anthropic, .dashscope, .ollama])
    func `the resolution of an image is refused by name`(_ kind: UpstreamConfiguration.Kind) throws {
        func body(_ detail: String) -> String {
            #"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"\#(detail)"}}]}]}"#
        }
        #expect(try Self.request(kind, body("auto"))["model"] == "m")
        let failure = #expect(throws: Failure.self) { try Self.request(kind, body("low")) }
        #expect(failure?.code == .unsupportedParameter && failure?.message.contains("\"detail\"") == true)
    }

    @Test(arguments: [#""stop_reason":"END""#, #""matched_stop":"END","stop_reason":null"#]) func `vLLM and SGLang name the stop sequence`(
        _ member: String
    ) throws {
        let chunk = #"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop",\#(member)}]}"#
        #expect(try DecodedAnswer(.openai, Array("data: \(chunk)\n\n".utf8)).stopSequence == "END")
        let document = #"{"choices":[{"message":{"content":"a"},"finish_reason":"stop",\#(member)}]}"#
        #expect(try DecodedAnswer(.openai, Array(document.utf8), type: "application/json").stopSequence == "END")
        // A token's id.
        let token = chunk.replacing("\"END\"", with: "128009")
        #expect(try DecodedAnswer(.openai, Array("data: \(token)\n\n".utf8)).stopSequence == nil)
    }

    @Test func `Anthropic counts tokens, and the others refuse`() throws {
        var request = GenerationRequest(jobID: JobID("p0-job")!, body: try #require(try JSON(parsing: Self.body).object))
        request.countsTokens = true
        let upstream = UpstreamConfiguration.at("http://host", kind: .anthropic)
        let adapter = try upstream.adapter(for: request)
        let sent = try adapter.request(request, on: upstream)
        #expect(sent.url == "http://host/v1/messages/count_tokens")
        let body = try JSON(parsing: sent.body)
        #expect(
            body.object?.names == ["model", "messages", "system", "tools", "output_config", "cache_control"]
                && body["system"]?[0]?["text"] == "a")
        for (document, outputs) in [
            (#"{"input_tokens": 2095}"#, [UpstreamOutput.text("2095"), .usage(promptTokens: 0, completionTokens: 0), .finished(.stop)]),
            (#"{"input_tokens": -1}"#, []), ("hello", []),
        ] {
            let decoder = try adapter.decoder(for: HTTPResponseHead(status: 200, contentType: "application/json"))
            var batch = OutputBatch()
            for byte in Array(document.utf8) { try decoder.receive([byte].span, into: &batch) }
            if outputs.isEmpty {
                #expect(throws: Failure.self) { try decoder.finish(into: &batch) }
            } else {
                try decoder.finish(into: &batch)
            }
            #expect(batch.outputs == outputs && decoder.isComplete == !outputs.isEmpty)
        }
        for kind in UpstreamConfiguration.Kind.allCases where kind != .anthropic {
            let failure = #expect(throws: Failure.self) { try UpstreamConfiguration.at("http://host", kind: kind).adapter(for: request) }
            #expect(failure?.code == .unsupportedParameter && failure?.message.contains("count_tokens") == true)
        }
    }

    @Test func `a document has its blocks in order`() throws {
        let document =
            #"{"content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"redacted_thinking","data":"d"},"#
            + #"{"type":"thinking","thinking":"so","signature":"t"},{"type":"text","text":"a"}],"stop_reason":"stop_sequence","stop_sequence":"END"}"#
        let answer = try DecodedAnswer(.anthropic, Array(document.utf8), type: "application/json")
        #expect(answer.marks == [.signature("s"), .redacted("d"), .signature("t")] && answer.reasoning == "hmso" && answer.text == "a")
        #expect(answer.stopSequence == "END")
    }
}
