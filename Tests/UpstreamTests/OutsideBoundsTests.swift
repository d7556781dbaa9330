import Contract
import JSONCodec
import Support
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// The largest accepted inputs, and numbers and names beyond the limits. An algorithm that is not linear exceeds the time limit by far.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(10)))
struct OutsideBoundsTests {
    private static func request(members: [JSONObject.Member]) -> GenerationRequest {
        var request = GenerationRequest.hello
        request.body = JSONObject(request.body.members + members)
        return request
    }

    @Test func `a request with many unknown members`() throws {
        let members = (0..<JSON.maximumValues - 100).map { JSONObject.Member(name: "m\($0)", value: 1) }
        let request = Self.request(members: members)
        let dashScope = UpstreamConfiguration.at("http://h", kind: .dashscope)
        let body = try dashScope.adapter.request(request, on: dashScope).body
        #expect(try JSON(parsing: body)["parameters"]?.object?.members.count == members.count + 2)
        for kind in [UpstreamConfiguration.Kind.anthropic, .ollama] {
            let upstream = UpstreamConfiguration.at("http://h", kind: kind)
            #expect { try upstream.adapter.request(request, on: upstream) } throws: { error in
                (error as? Failure)?.code == .unsupportedParameter && (error as? Failure)?.message.contains("\"m0\"") == true
            }
        }
    }

    @Test(arguments: [UpstreamConfiguration.Kind.dashscope, .anthropic, .ollama])
    func `a duplicate name is rejected`(_ kind: UpstreamConfiguration.Kind) {
        let upstream = UpstreamConfiguration.at("http://h", kind: kind)
        for name in ["messages", "model", "temperature"] {
            let value = GenerationRequest.hello.body[name] ?? 1
            let members = (0..<3_000).map { _ in JSONObject.Member(name: name, value: value) }
            #expect { try upstream.adapter.request(Self.request(members: members), on: upstream) } throws: { error in
                (error as? Failure)?.code == .invalidRequest && (error as? Failure)?.message.contains("\"\(name)\"") == true
            }
        }
    }

    private static func read(_ kind: UpstreamConfiguration.Kind, _ body: String, type: String) throws -> [UpstreamOutput] {
        var head = HTTPResponseHead()
        head.status = 200
        head.contentType = type
        let decoder = try UpstreamConfiguration.at("http://h", kind: kind).adapter.decoder(for: head)
        var batch = OutputBatch()
        try decoder.receive(Array(body.utf8).span, into: &batch)
        try decoder.finish(into: &batch)
        return batch.outputs
    }

    private static func usages(_ number: String) throws -> [UpstreamOutput] {
        let stream = "text/event-stream"
        let bodies: [(UpstreamConfiguration.Kind, String, String)] = [
            (.openai, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":\(number),\"completion_tokens\":\(number)}}\n\n", stream),
            (
                .openai, "{\"choices\":[{\"message\":{}}],\"usage\":{\"prompt_tokens\":\(number),\"completion_tokens\":\(number)}}",
                "application/json"
            ),
            (.dashscope, "data: {\"usage\":{\"input_tokens\":\(number),\"output_tokens\":\(number)}}\n\n", stream),
            (.ollama, "{\"done\":true,\"prompt_eval_count\":\(number),\"eval_count\":\(number)}\n", "application/x-ndjson"),
            (
                .anthropic,
                "data: {\"type\":\"message_delta\",\"usage\":{\"input_tokens\":\(number),\"cache_read_input_tokens\":\(number),"
                    + "\"cache_creation_input_tokens\":\(number),\"output_tokens\":\(number)}}\n\n", stream
            ),
        ]
        return try bodies.flatMap { try read($0, $1, type: $2) }
    }

    @Test(arguments: [
        ("-1", 0), ("-9223372036854775808", 0), ("9007199254740993", 1 << 53), ("9223372036854775807", 1 << 53),
        ("18446744073709551616", 1 << 53), ("1e308", 1 << 53), ("1e999", 1 << 53), ("-1e999", 0), ("-0", 0),
    ]) func `token counts are limited`(_ number: String, _ expected: Int) throws {
        let usages = try Self.usages(number).filter { if case .usage = $0 { true } else { false } }
        #expect(usages.count == 5)
        for case .usage(let prompt, let completion, let details) in usages {
            #expect(prompt == expected && completion == expected && details.cached ?? expected == expected, "\(usages)")
        }
    }

    @Test func `the number of tool calls is limited`() throws {
        let calls = (0..<1_024).map { "{\"index\":\($0),\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}" }.joined(separator: ",")
        let chunk = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[\(calls)]}}]}\n\n"
        // Many more fragments than calls.
        let body = String(repeating: chunk, count: 20)
        #expect {
            try Self.read(.openai, body + "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", type: "text/event-stream")
        } throws: {
            ($0 as? Failure)?.code == .outputTooLarge
        }
        let one = chunk + "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n"
        #expect(try Self.read(.openai, one, type: "text/event-stream").count == 1_025)
        let more = chunk + "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":9223372036854775807,\"id\":\"x\"}]}}]}\n\n"
        #expect { try Self.read(.openai, more, type: "text/event-stream") } throws: { ($0 as? Failure)?.code == .outputTooLarge }
        let fragments = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[\(String(repeating: "{},", count: 200_000)){}]}}]}\n\n"
        #expect { try Self.read(.openai, fragments, type: "text/event-stream") } throws: { ($0 as? Failure)?.code == .upstreamProtocol }
    }

    @Test func `the length of names of tool calls is limited`() throws {
        for (name, id, isAccepted) in [(128, 1_024, true), (129, 1, false), (1, 1_025, false)] {
            var tools = ToolCallAssembler()
            let fragment = ToolCallAssembler.Fragment(
                index: 0, id: String(repeating: "i", count: id), name: String(repeating: "n", count: name), arguments: "{}")
            if isAccepted {
                try tools.add(fragment)
                let calls = try tools.finish()
                #expect(calls.count == 1)
            } else {
                #expect { try tools.add(fragment) } throws: { ($0 as? Failure)?.code == .upstreamProtocol }
            }
        }
        // A name in several fragments.
        var tools = ToolCallAssembler()
        #expect(throws: Failure.self) {
            for number in 0..<100 { try tools.add(.init(index: 0, name: "part\(number)")) }
        }
    }

    @Test func `the length of provider messages is limited`() {
        let long = String(repeating: "长", count: 300_000)
        let error = ProviderError(["message": .string(long), "code": .string(long), "type": .string(long), "request_id": .string(long)])
        #expect(error.message.utf8.count <= 2_400 && error.shown.utf8.count < 2_600)
        #expect((error.code?.utf8.count ?? 0) <= 128 && (error.type?.utf8.count ?? 0) <= 128)
        #expect(HTTPFailure.redact(long, key: "sk-canary").utf8.count == 600)
        // A text that consists of repeated keys.
        #expect(HTTPFailure.redact(String(repeating: "a", count: 1 << 20), key: String(repeating: "a", count: 200)) == "[key][key][key]")
        #expect(HTTPFailure.redact("ééé", key: nil, limit: 3) == "é")
    }

    @Test func `text is truncated at a character`() {
        #expect("abc".cut(toBytes: 3) == "abc" && "abcd".cut(toBytes: 3) == "abc" && "aé".cut(toBytes: 2) == "a")
        #expect("你好".cut(toBytes: 5) == "你" && "😀".cut(toBytes: 3).isEmpty && "".cut(toBytes: 0).isEmpty)
    }
}
