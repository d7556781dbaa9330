import Contract
import JSONCodec
import Testing

@testable import CurlTransport
@testable import Upstream

/// Unusual answers that real upstreams send, in every dialect.
struct OddStreamTests {
    /// A frame with a message, in OpenAI's form, and a finish reason.
    private static func frame(_ kind: UpstreamConfiguration.Kind, _ message: String, finish: String? = nil) -> String {
        let reason = finish.map { "\"\($0)\"" } ?? "null"
        return switch kind {
        case .openai: "{\"choices\":[{\"delta\":\(message),\"finish_reason\":\(reason)}]}"
        case .dashscope: "{\"output\":{\"choices\":[{\"message\":\(message),\"finish_reason\":\(reason)}]}}"
        case .ollama: "{\"message\":\(message),\"done\":\(finish != nil),\"done_reason\":\(reason)}"
        case .anthropic: "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\(reason)}}"
        }
    }

    private static func text(_ kind: UpstreamConfiguration.Kind, _ text: String) -> String {
        kind == .anthropic
            ? "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\(text)}}"
            : frame(kind, "{\"content\":\(text)}")
    }

    private static let kinds = UpstreamConfiguration.Kind.allCases

    private static func call(_ members: String) -> String { "{\"tool_calls\":[{\(members)}]}" }

    @Test(arguments: [UpstreamConfiguration.Kind.openai, .dashscope])
    func `a call that the token limit cut is left out`(_ kind: UpstreamConfiguration.Kind) throws {
        for arguments in [#"{\"a"#, "", "   "] {
            let call = Self.call(#""index":0,"id":"c","function":{"name":"f","arguments":"\#(arguments)"}"#)
            let answer = try DecodedAnswer(
                kind, frames: [Self.text(kind, "\"I look. \""), Self.frame(kind, call), Self.frame(kind, "{}", finish: "length")])
            #expect(answer.text == "I look. " && answer.calls.isEmpty && answer.reason == .length)
        }
        let document =
            #"{"choices":[{"message":{"content":"I look. ","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a"}}]},"finish_reason":"length"}]}"#
        let answer = try DecodedAnswer(.openai, Array(document.utf8), type: "application/json")
        #expect(answer.text == "I look. " && answer.calls.isEmpty && answer.reason == .length)
    }

    @Test func `Anthropic: a call that the token limit cut is left out`() throws {
        let start = #"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#
        let delta = #"{"type":"content_block_delta","index":1,"delta":{"partial_json":"{\"a"}}"#
        for frames in [[start, delta], [start]] {
            let answer = try DecodedAnswer(
                .anthropic, frames: [Self.text(.anthropic, "\"a\"")] + frames + [Self.frame(.anthropic, "", finish: "max_tokens")])
            #expect(answer.text == "a" && answer.calls.isEmpty && answer.reason == .length)
        }
    }

    @Test func `Anthropic: deltas count if the input also came whole`() throws {
        let start = #"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{"a":0}}}"#
        let delta = #"{"type":"content_block_delta","index":1,"delta":{"partial_json":"{\"a\":1}"}}"#
        let end = Self.frame(.anthropic, "", finish: "tool_use")
        #expect(try DecodedAnswer(.anthropic, frames: [start, delta, end]).names == [#"0 f{"a":1}"#])
        #expect(try DecodedAnswer(.anthropic, frames: [start, end]).names == [#"0 f{"a":0}"#])
    }

    /// Each element is one chunk's list of fragments.
    @Test(arguments: [
        [
            #"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            #"{"index":0,"id":"b","function":{"name":"g","arguments":"[]"}}"#,
        ],
        [
            #"{"index":1,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            #"{"index":2,"id":"b","function":{"name":"g","arguments":"[]"}}"#,
        ],
        [
            #"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
            #"{"index":0,"id":"b","function":{"name":"g","arguments":""}}"#,
            #"{"index":1,"function":{"arguments":"["}}"#, #"{"index":1,"function":{"arguments":"]"}}"#,
        ],
        [#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#, #"{"id":"b","function":{"name":"g","arguments":"[]"}}"#],
        [#"{"function":{"name":"f","arguments":"{}"}}"#, #"{"function":{"name":"g","arguments":"[]"}}"#],
        [#"{"function":{"name":"f","arguments":"{}"}},{"function":{"name":"g","arguments":"[]"}}"#],
        [#"{"function":{"name":"f","arguments":{}}}"#, #"{"function":{"name":"g","arguments":[]}}"#],
        [
            #"{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}"#,
            #"{"index":"0","id":"a","function":{"name":"f","arguments":"}"}},{"index":"1","function":{"name":"g","arguments":"[]"}}"#,
        ],
    ]) func `two calls are told apart`(_ chunks: [String]) throws {
        for kind in [UpstreamConfiguration.Kind.openai, .dashscope] {
            let frames = chunks.map { Self.frame(kind, "{\"tool_calls\":[\($0)]}") }
            let answer = try DecodedAnswer(kind, frames: frames + [Self.frame(kind, "{}", finish: "stop")])
            #expect(answer.names == ["0 f{}", "1 g[]"])
            #expect(Set(answer.calls.map(\.callID)).count == 2)
            #expect(answer.reason == .toolCalls)
        }
    }

    @Test(arguments: kinds) func `the last finish reason counts, and what follows an early one`(_ kind: UpstreamConfiguration.Kind) throws {
        let stop = Self.frame(kind, "{}", finish: "stop")
        let answer = try DecodedAnswer(
            kind, frames: [stop, Self.text(kind, "\"a\""), Self.frame(kind, "{}", finish: kind == .anthropic ? "max_tokens" : "length")])
        #expect(answer.text == "a" && answer.reason == .length && answer.isOver)
        let cut = try DecodedAnswer(kind, Array((kind == .ollama ? "\(stop)\n{\"me" : "data: \(stop)\n\ndata: {\"ty").utf8))
        #expect(cut.reason == .stop && cut.isComplete)
        guard kind != .anthropic else { return }
        let call = Self.call(#""index":0,"id":"c","function":{"name":"f","arguments":{"a":1}}"#)
        #expect(try DecodedAnswer(kind, frames: [stop, Self.frame(kind, call)]).names == [#"0 f{"a":1}"#])
    }

    @Test func `an end mark without output is no answer`() throws {
        for (kind, mark) in [(UpstreamConfiguration.Kind.openai, "[DONE]"), (.anthropic, #"{"type":"message_stop"}"#)] {
            let empty = try DecodedAnswer(kind, frames: [mark])
            #expect(!empty.isComplete && empty.isOver && empty.reason == nil)
            #expect(try DecodedAnswer(kind, frames: [Self.text(kind, "\"a\""), mark]).reason == .stop)
        }
    }

    @Test(arguments: kinds) func `finish reasons that mean a failure`(_ kind: UpstreamConfiguration.Kind) throws {
        for (reason, code) in [
            ("network_error", FailureCode.upstreamError), ("insufficient_system_resource", .overloaded), ("error", .upstreamError),
            ("MALFORMED_FUNCTION_CALL", .upstreamError), ("abort", .upstreamError), ("engine_overloaded", .overloaded),
        ] {
            let answer = try DecodedAnswer(kind, frames: [Self.text(kind, "\"a\""), Self.frame(kind, "{}", finish: reason)])
            #expect(answer.text == "a" && answer.failure?.code == code && !answer.isComplete && answer.isOver, "\(reason)")
        }
        for reason in ["model_length", "model_context_window_exceeded", "MAX_TOKENS"] {
            #expect(try DecodedAnswer(kind, frames: [Self.text(kind, "\"a\""), Self.frame(kind, "{}", finish: reason)]).reason == .length)
        }
    }

    @Test(arguments: kinds) func `text in unusual forms`(_ kind: UpstreamConfiguration.Kind) throws {
        let stop = Self.frame(kind, "{}", finish: "stop")
        #expect(try DecodedAnswer(kind, frames: [Self.text(kind, "\"n=\""), Self.text(kind, "42"), stop]).text == "n=42")
        let halves = [#""a\ud83d""#, #""""#, #""\ude00b""#, #""\ude00\\ud83d""#, #""\ud83d""#]
        #expect(try DecodedAnswer(kind, frames: halves.map { Self.text(kind, $0) } + [stop]).text == "a😀b\u{FFFD}\\ud83d\u{FFFD}")
        let frames = [Self.text(kind, "\"a?b\""), stop].map { kind == .ollama ? "\($0)\n" : "data: \($0)\n\n" }.joined()
        let bytes = frames.utf8.map { $0 == UInt8(ascii: "?") ? 0xFF : $0 }
        #expect(try DecodedAnswer(kind, bytes).text == "a\u{FFFD}b")
    }

    @Test func `thinking parts are reasoning`() throws {
        let parts = #"[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]},{"type":"text","text":"Four"}]"#
        for kind in [UpstreamConfiguration.Kind.openai, .dashscope, .ollama] {
            let answer = try DecodedAnswer(
                kind, frames: [Self.frame(kind, "{\"content\":\(parts)}"), Self.frame(kind, "{}", finish: "stop")])
            #expect(answer.text == "Four" && answer.reasoning == "Hm.")
        }
        let document = "{\"choices\":[{\"message\":{\"content\":\(parts)}}]}"
        let answer = try DecodedAnswer(.openai, Array(document.utf8), type: "application/json")
        #expect(answer.text == "Four" && answer.reasoning == "Hm." && answer.reason == .stop)
    }

    @Test(arguments: [
        "[]", "\"\"", "7", #"{"prompt_tokens":"x","completion_tokens":1.5}"#, #"{"prompt_tokens":"inf","completion_tokens":"0x10"}"#,
        #"{"prompt_tokens":[],"completion_tokens":{}}"#,
    ])
    func `unreadable usage counts as absent`(_ usage: String) throws {
        let answer = try DecodedAnswer(
            .openai, frames: [#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}],"usage":\#(usage)}"#])
        #expect(answer.text == "a" && answer.usages == 0 && answer.reason == .stop)
    }

    @Test func `arguments of tools that Anthropic runs are no part of a call`() throws {
        let frames = [
            #"{"type":"message_start","message":{"usage":{"input_tokens":1}}}"#,
            #"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            #"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
            #"{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#,
            #"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"query\":1}"}}"#,
            #"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":1}}"#, #"{"type":"message_stop"}"#,
        ]
        let answer = try DecodedAnswer(.anthropic, frames: frames)
        #expect(answer.names == ["0 f{}"])
    }

    @Test func `of a repeated member the last one counts`() throws {
        for kind in [UpstreamConfiguration.Kind.openai, .dashscope, .ollama] {
            let call = #"[{"function":{"name":"f","arguments":"{}"}}]"#
            let frame = Self.frame(
                kind,
                #"{"content":"x","content":[{"text":"y","text":"a","refusal":null,"thinking":""}],"refusal":"x","refusal":"b","tool_calls":\#(call),"tool_calls":\#(call)}"#
            )
            let answer = try DecodedAnswer(kind, frames: [frame, Self.frame(kind, "{}", finish: "stop")])
            #expect(answer.text == "ab" && answer.names == ["0 f{}"])
        }
    }

    @Test(arguments: [
        (
            UpstreamConfiguration.Kind.openai,
            #"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4},"#
                + #""completion_tokens_details":{"reasoning_tokens":3,"audio_tokens":1}}}"#, TokenDetails(cached: 4, reasoning: 3)
        ),
        (
            .openai, #"{"choices":[],"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":4,"completion_tokens_details":null}}"#,
            TokenDetails(cached: 4)
        ),
        (
            .dashscope,
            #"{"output":{},"usage":{"input_tokens":9,"output_tokens":8,"prompt_tokens_details":{"cached_tokens":4},"#
                + #""output_tokens_details":{"reasoning_tokens":"3"}}}"#, TokenDetails(cached: 4, reasoning: 3)
        ),
        (
            .anthropic, #"{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":4,"output_tokens":1}}}"#,
            TokenDetails(cached: 4)
        ),
        (.openai, #"{"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":[]}}"#, TokenDetails()),
    ]) func `details of the usage are passed on`(_ kind: UpstreamConfiguration.Kind, _ frame: String, _ details: TokenDetails) throws {
        let answer = try DecodedAnswer(kind, frames: [frame])
        #expect(answer.usages == 1 && answer.details == details)
    }

    @Test func `arguments of Ollama as a string`() throws {
        let call = #"{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]}"#
        let answer = try DecodedAnswer(.ollama, frames: [Self.frame(.ollama, call), Self.frame(.ollama, "{}", finish: "stop")])
        #expect(answer.names == [#"0 f{"a":1}"#] && answer.reason == .toolCalls)
    }

    @Test(arguments: [
        (#"{"choices":null,"error_type":"BadRequestError","error_message":"too long"}"#, FailureCode.invalidRequest, "too long"),
        (#"[{"error":{"code":429,"message":"used up","status":"RESOURCE_EXHAUSTED"}}]"#, .rateLimited, "used up"),
        (#"{"error":{"message":"m","code":"internal_error","type":"model_overloaded"}}"#, .overloaded, "m"),
        (#"{"choices":[{"delta":{},"error":{"code":502,"message":"gone"},"finish_reason":"error"}]}"#, .upstreamError, "gone"),
    ]) func `error frames of gateways`(_ frame: String, _ code: FailureCode, _ message: String) throws {
        let answer = try DecodedAnswer(.openai, frames: [frame, "[DONE]"])
        #expect(answer.failure?.code == code && answer.failure?.message.contains(message) == true)
        guard frame.first == "[" else { return }
        for kind in Self.kinds { #expect(try DecodedAnswer(kind, frames: [frame]).failure?.code == code) }
    }

    @Test(arguments: [
        (#"[{"error":{"message":"Unknown name"}}]"#, "Unknown name"), (#"{"detail":"Not allowed"}"#, "Not allowed"),
        (#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, "field required"), (#"{"errors":["too many"]}"#, "too many"),
        (#"{"errors":{"model":["is invalid"]}}"#, "model: is invalid"), (#"{"error":{"detail":"bad"}}"#, "bad"),
    ]) func `error bodies keep their message`(_ body: String, _ message: String) {
        #expect(ProviderError(body: Array(body.utf8))?.message == message)
    }
}
