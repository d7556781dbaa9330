import Contract
import JSONCodec
import Testing

@testable import CurlTransport
@testable import Upstream

struct RequestTests {
    private static func request(
        _ kind: UpstreamConfiguration.Kind, _ body: String, continuation: String? = nil, prefix: UpstreamConfiguration.Prefix? = nil,
        trace: String? = nil
    ) throws -> HTTPRequest {
        var request = GenerationRequest(jobID: JobID("p0-job")!, body: try #require(try JSON(parsing: body).object))
        request.continuation = continuation
        request.traceparent = trace
        var upstream = UpstreamConfiguration.at("http://host/base/", kind: kind)
        if let prefix { upstream.prefix = prefix }
        return try upstream.adapter.request(request, on: upstream)
    }

    private static func body(_ request: HTTPRequest) -> String { String(decoding: request.body, as: UTF8.self) }

    private static let hi = #""model":"m","messages":[{"role":"user","content":"hi"}]"#

    @Test(arguments: [
        (UpstreamConfiguration.Kind.openai, "http://host/base/chat/completions", "Authorization: Bearer sk-secret-canary"),
        (.dashscope, "http://host/base/services/aigc/text-generation/generation", "X-DashScope-SSE: enable"),
        (.anthropic, "http://host/base/v1/messages", "x-api-key: sk-secret-canary"),
        (.ollama, "http://host/base/api/chat", "Authorization: Bearer sk-secret-canary"),
    ]) func `URL and headers`(_ kind: UpstreamConfiguration.Kind, _ url: String, _ header: String) throws {
        let request = try Self.request(kind, "{\(Self.hi)}", trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        #expect(request.url == url)
        #expect(request.headers.contains(header))
        #expect(request.headers.contains("x-request-id: p0-job"))
        let trace = try #require(request.headers.first { $0.hasPrefix("traceparent: 00-0af7651916cd43dd8448eb211c80319c-") })
        #expect(trace.hasSuffix("-01") && !trace.contains("b7ad6b7169203331"), "a step of its own: \(trace)")
        #expect(try Self.request(kind, "{\(Self.hi)}", trace: "00\r\nHost: evil").headers.count == request.headers.count - 1)
    }

    @Test func `OpenAI: all members are passed on unchanged`() throws {
        let request = try Self.request(
            .openai,
            "{\(Self.hi),\"temperature\":0.70,\"seed\":9007199254740993,\"stream\":false,\"stream_options\":{\"x\":1},\"odd\":[null]}")
        #expect(
            Self.body(request)
                == "{\(Self.hi),\"temperature\":0.70,\"seed\":9007199254740993,\"stream\":true,\"stream_options\":{\"x\":1,\"include_usage\":true},\"odd\":[null]}"
        )
    }

    @Test(arguments: [
        (UpstreamConfiguration.Prefix.partial, #"{"role":"assistant","content":"so far","partial":true}],"#),
        (.prefix, #"{"role":"assistant","content":"so far","prefix":true}],"#),
        (.continue, #"{"role":"assistant","content":"so far"}],"continue_final_message":true,"add_generation_prompt":false,"#),
    ]) func `OpenAI: continuation`(_ prefix: UpstreamConfiguration.Prefix, _ expected: String) throws {
        let request = try Self.request(.openai, "{\(Self.hi)}", continuation: "so far", prefix: prefix)
        #expect(Self.body(request).contains(expected))
    }

    @Test func `a prefix in the job's request is continued`() throws {
        let body = #"{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Once ","partial":true}]}"#
        let request = try Self.request(.dashscope, body, continuation: "upon")
        #expect(Self.body(request).contains(#"{"role":"assistant","content":"Once upon","partial":true}]"#))
    }

    @Test func `DashScope: translation`() throws {
        let request = try Self.request(
            .dashscope,
            #"{"model":"m","messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],"#
                + #""temperature":0.7,"max_completion_tokens":9,"stop":"x","seed":1,"enable_thinking":true,"user":"u","frequency_penalty":0,"#
                + #""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto","response_format":{"type":"json_object"}}"#)
        #expect(
            Self.body(request)
                == #"{"model":"m","input":{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"ab"}]},"parameters":{"#
                + #""temperature":0.7,"seed":1,"enable_thinking":true,"tools":[{"type":"function","function":{"name":"f"}}],"#
                + #""response_format":{"type":"json_object"},"max_tokens":9,"stop":["x"],"tool_choice":"auto","incremental_output":true,"#
                + #""result_format":"message"}}"#)
    }

    @Test func `DashScope: images use the multimodal service`() throws {
        let request = try Self.request(
            .dashscope,
            #"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/cat.png"}},{"type":"text","text":"what?"}]}]}"#
        )
        #expect(request.url.hasSuffix("/services/aigc/multimodal-generation/generation"))
        #expect(Self.body(request).contains(#""content":[{"image":"https://x/cat.png"},{"text":"what?"}]"#))
    }

    private static let conversation =
        #""messages":[{"role":"system","content":"S1"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}},{"type":"text","text":"q"}]},"#
        + #"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},"#
        + #"{"role":"tool","tool_call_id":"c1","content":"r1"},{"role":"tool","tool_call_id":"c2","content":"r2"},{"role":"user","content":"and?"}]"#
    private static let tools = #""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]"#

    @Test func `Anthropic: translation`() throws {
        let request = try Self.request(
            .anthropic,
            "{\"model\":\"m\",\(Self.conversation),\(Self.tools),\"tool_choice\":\"required\",\"parallel_tool_calls\":false,\"temperature\":1,\"stop\":[\"a\"],\"user\":\"u\",\"max_tokens\":7}"
        )
        #expect(
            Self.body(request)
                == #"{"model":"m","max_tokens":7,"stream":true,"system":"S1","messages":["#
                + #"{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUJD"}},{"type":"text","text":"q"}]},"#
                + #"{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"f","input":{"a":1}},{"type":"tool_use","id":"c2","name":"g","input":{}}]},"#
                + #"{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"r1"}]},"#
                + #"{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"r2"}]},{"type":"text","text":"and?"}]}],"#
                + #""tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"#
                + #""tool_choice":{"type":"any","disable_parallel_tool_use":true},"stop_sequences":["a"],"metadata":{"user_id":"u"},"temperature":1}"#
        )
    }

    @Test func `Anthropic: continuation if configured`() throws {
        let request = try Self.request(.anthropic, "{\(Self.hi)}", continuation: "so far", prefix: .prefix)
        #expect(Self.body(request).hasSuffix(#"{"role":"assistant","content":[{"type":"text","text":"so far"}]}]}"#))
        #expect(throws: Failure.self) { try Self.request(.anthropic, "{\(Self.hi)}", continuation: "so far ", prefix: .prefix) }
    }

    @Test func `Ollama: translation`() throws {
        let request = try Self.request(
            .ollama,
            "{\"model\":\"m\",\(Self.conversation),\(Self.tools),\"temperature\":0.5,\"max_tokens\":7,\"stop\":\"a\",\"seed\":3,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":\"object\"}}}}"
        )
        #expect(
            Self.body(request)
                == #"{"model":"m","messages":[{"role":"system","content":"S1"},{"role":"user","content":"q","images":["QUJD"]},"#
                + #"{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}},{"function":{"name":"g","arguments":{}}}]},"#
                + #"{"role":"tool","tool_name":"f","content":"r1"},{"role":"tool","tool_name":"g","content":"r2"},{"role":"user","content":"and?"}],"#
                + #""stream":true,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"#
                + #""format":{"type":"object"},"options":{"temperature":0.5,"seed":3,"num_predict":7,"stop":["a"]}}"#)
    }

    @Test(arguments: [UpstreamConfiguration.Kind.dashscope, .anthropic, .ollama])
    func `functions are translated to tools`(_ kind: UpstreamConfiguration.Kind) throws {
        let function = #"{"name":"f","parameters":{"type":"object"}}"#
        let choice = kind == .ollama ? (#""auto""#, #""auto""#) : (#"{"name":"f"}"#, #"{"type":"function","function":{"name":"f"}}"#)
        let old = try Self.request(kind, "{\(Self.hi),\"functions\":[\(function)],\"function_call\":\(choice.0)}")
        let new = try Self.request(
            kind, "{\(Self.hi),\"tools\":[{\"type\":\"function\",\"function\":\(function)}],\"tool_choice\":\(choice.1)}")
        #expect(Self.body(old) == Self.body(new))
        #expect(#expect(throws: Failure.self) { try Self.request(kind, "{\(Self.hi),\"functions\":1}") }?.code == .invalidRequest)
        #expect(
            #expect(throws: Failure.self) { try Self.request(kind, "{\(Self.hi),\"functions\":[],\"tools\":[]}") }?.code == .invalidRequest)
    }

    @Test(arguments: [
        (UpstreamConfiguration.Kind.openai, #""n":2"#, "n"), (.openai, #""logprobs":true"#, "logprobs"),
        (.dashscope, #""top_logprobs":2"#, "top_logprobs"), (.openai, #""modalities":["text","audio"]"#, "modalities"),
        (.anthropic, #""seed":1"#, "seed"),
        (.anthropic, #""response_format":{"type":"json_object"}"#, "response_format"), (.anthropic, #""temperature":1.5"#, "temperature"),
        (.anthropic, #""frequency_penalty":0.5"#, "frequency_penalty"), (.anthropic, #""invented":1"#, "invented"),
        (.ollama, #""logit_bias":{}"#, "logit_bias"), (.ollama, #""tool_choice":"required""#, "tool_choice"),
        (.dashscope, #""frequency_penalty":1"#, "frequency_penalty"), (.dashscope, #""tool_choice":"required""#, "tool_choice"),
    ]) func `an unsupported member is named in the failure`(_ kind: UpstreamConfiguration.Kind, _ member: String, _ name: String) throws {
        let failure = #expect(throws: Failure.self) { try Self.request(kind, "{\(Self.hi),\(member)}") }
        #expect(failure?.code == .unsupportedParameter)
        #expect(failure?.message.contains("\"\(name)\"") == true)
    }

    @Test(arguments: [#"{"messages":[]}"#, #"{"model":"m"}"#, #"{"model":"m","messages":[]}"#, #"{"model":"","messages":[{}]}"#])
    func `invalid requests`(_ body: String) throws {
        #expect(#expect(throws: Failure.self) { try Self.request(.openai, body) }?.code == .invalidRequest)
    }

    @Test func `an answer is continued only with a prefix setting`() throws {
        for kind in UpstreamConfiguration.Kind.allCases where kind != .dashscope {
            let failure = #expect(throws: Failure.self) { try Self.request(kind, "{\(Self.hi)}", continuation: "so far") }
            #expect(failure?.code == .unsupportedParameter)
        }
    }

    @Test func `Ollama: image URLs are rejected`() throws {
        let body = #"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/cat.png"}}]}]}"#
        #expect(#expect(throws: Failure.self) { try Self.request(.ollama, body) }?.code == .unsupportedParameter)
    }

    @Test func `a key that is not a valid header value is rejected`() throws {
        var upstream = UpstreamConfiguration.at("http://h", key: "sk\r\nHost: evil")
        let failure = #expect(throws: Failure.self) { try upstream.adapter.request(.hello, on: upstream) }
        #expect(failure?.code == .authentication)
        #expect(failure?.message.contains("evil") == false)
        upstream.key = nil
        #expect(try !upstream.adapter.request(.hello, on: upstream).headers.contains { $0.hasPrefix("Authorization") })
    }
}
