import Contract
import Testing

@testable import CurlTransport
@testable import Upstream

/// Whole JSON documents of upstreams that ignore `stream`.
struct OddDocumentTests {
    private static let kinds: [UpstreamConfiguration.Kind] = [.openai, .dashscope, .anthropic]

    /// A document with text and a call.
    /// - Parameters:
    ///   - content: the text as JSON.
    ///   - arguments: the arguments as JSON.
    private static func document(
        _ kind: UpstreamConfiguration.Kind, _ content: String, arguments: String, finish: String?
    ) -> String {
        let reason = finish.map { "\"\($0)\"" } ?? "null"
        if kind == .anthropic {
            return #"{"type":"message","content":[{"type":"thinking","thinking":"Hm."},{"type":"text","text":\#(content)},"#
                + #"{"type":"tool_use","id":"c","name":"f","input":\#(arguments)}],"stop_reason":\#(reason),"usage":{"input_tokens":3,"output_tokens":4}}"#
        }
        let message =
            #"{"content":\#(content),"reasoning_content":"Hm.","tool_calls":[{"id":"c","function":{"name":"f","arguments":\#(arguments)}}]}"#
        let choices = #""choices":[{"message":\#(message),"finish_reason":\#(reason)}]"#
        return kind == .dashscope
            ? #"{"output":{\#(choices)},"usage":{"input_tokens":3,"output_tokens":4}}"#
            : #"{\#(choices),"usage":{"prompt_tokens":3,"completion_tokens":4}}"#
    }

    private static func read(_ kind: UpstreamConfiguration.Kind, _ document: String, type: String = "application/json") throws
        -> DecodedAnswer
    {
        try DecodedAnswer(kind, Array(document.utf8), type: type)
    }

    @Test(arguments: kinds, ["application/json", "", "text/event-stream"])
    func `a document is an answer`(_ kind: UpstreamConfiguration.Kind, _ type: String) throws {
        for finish in [nil, "stop", "tool_use"] {
            let document = Self.document(kind, "\"Hello\"", arguments: #"{"a":1}"#, finish: finish)
            let answer = try Self.read(kind, "\n\n" + document + "\n", type: type)
            #expect(answer.text == "Hello" && answer.reasoning == "Hm." && answer.names == [#"0 f{"a":1}"#])
            #expect(answer.reason == .toolCalls && answer.usages == 1 && answer.isComplete && answer.failure == nil)
        }
    }

    @Test(arguments: kinds) func `a call that the token limit cut is left out`(_ kind: UpstreamConfiguration.Kind) throws {
        for arguments in [#""{\"a""#, "\"\"", "{}"] {
            let finish = kind == .anthropic ? "max_tokens" : "length"
            // Of an empty object in OpenAI's form it is not known whether it was cut; Anthropic sends one when the input is missing.
            guard arguments != "{}" || kind == .anthropic else { continue }
            let answer = try Self.read(kind, Self.document(kind, "\"I look.\"", arguments: arguments, finish: finish))
            #expect(answer.text == "I look." && answer.calls.isEmpty && answer.reason == .length, "\(arguments)")
        }
    }

    @Test(arguments: kinds) func `text in unusual forms`(_ kind: UpstreamConfiguration.Kind) throws {
        func text(_ content: String) throws -> String {
            try Self.read(kind, Self.document(kind, content, arguments: #"{"a":1}"#, finish: "stop")).text
        }
        #expect(try text("42") == "42")
        #expect(try text(#"[{"type":"text","text":"a"},{"text":"b"}]"#) == "ab")
        #expect(try text(#""a\ud83d\ude00b""#) == "a😀b")
        #expect(try text(#""\ude00a\ud83d""#) == "\u{FFFD}a\u{FFFD}")
        let bytes = Self.document(kind, "\"a?b\"", arguments: "{}", finish: "stop").utf8.map { $0 == UInt8(ascii: "?") ? 0xFF : $0 }
        #expect(try DecodedAnswer(kind, bytes, type: "application/json").text == "a\u{FFFD}b")
    }

    @Test(arguments: kinds) func `finish reasons that mean a failure`(_ kind: UpstreamConfiguration.Kind) throws {
        let answer = try Self.read(kind, Self.document(kind, "\"a\"", arguments: #"{"a":1}"#, finish: "network_error"))
        #expect(answer.text == "a" && answer.failure?.code == .upstreamError && answer.calls.isEmpty && !answer.isComplete)
    }

    @Test(
        arguments: kinds,
        [
            (#"{"error":{"type":"overloaded_error","message":"busy"}}"#, FailureCode.overloaded, "busy"),
            (#"[{"error":{"code":429,"message":"used up","status":"RESOURCE_EXHAUSTED"}}]"#, .rateLimited, "used up"),
            (#"{"detail":"Not allowed"}"#, .upstreamProtocol, "Not allowed"),
        ])
    func `errors in documents`(_ kind: UpstreamConfiguration.Kind, _ error: (body: String, code: FailureCode, message: String)) throws {
        for type in ["application/json", "text/event-stream"] {
            let answer = try Self.read(kind, error.body, type: type)
            #expect(answer.failure?.code == error.code && answer.failure?.message.contains(error.message) == true, "\(type) \(answer)")
        }
    }

    @Test(arguments: kinds) func `documents that hold no answer`(_ kind: UpstreamConfiguration.Kind) throws {
        for document in ["{}", #"{"status":"ok"}"#, "[]", "{", #"{"choices":7,"output":7,"content":7}"#] {
            let answer = try Self.read(kind, document)
            #expect(answer.failure?.code == .upstreamProtocol && !answer.isComplete, "\(document) \(answer)")
        }
    }

    @Test func `DashScope: text beside choices`() throws {
        let answer = try Self.read(.dashscope, #"{"output":{"text":"Hello","finish_reason":"length","choices":null}}"#)
        #expect(answer.text == "Hello" && answer.reason == .length)
        #expect(
            try DecodedAnswer(
                .dashscope,
                frames: [#"{"output":{"text":"a","finish_reason":"null"}}"#, #"{"output":{"text":"b","finish_reason":"stop"}}"#]
            ).text == "ab")
    }

    /// Arguments that are not JSON are never passed on.
    @Test(arguments: [#"{"a":"\uxxxx"}"#, #"{"a":"\x"}"#, #"{"\u12":1}"#, #"{"a":["\ud8"]}"#])
    func `invalid escapes in arguments`(_ arguments: String) throws {
        let quoted = "\"" + arguments.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
        for kind in Self.kinds {
            let answer = try Self.read(kind, Self.document(kind, "\"a\"", arguments: arguments, finish: "stop"))
            #expect(answer.failure?.code == .upstreamProtocol && answer.calls.isEmpty)
        }
        for kind in [UpstreamConfiguration.Kind.openai, .dashscope, .ollama] {
            for form in [arguments, quoted] {
                let call = #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":\#(form)}}]}"#
                let frame =
                    switch kind {
                    case .dashscope: #"{"output":{"choices":[{"message":\#(call),"finish_reason":"stop"}]}}"#
                    case .ollama: #"{"message":\#(call),"done":true}"#
                    default: #"{"choices":[{"delta":\#(call),"finish_reason":"stop"}]}"#
                    }
                let answer = try DecodedAnswer(kind, frames: [frame])
                #expect(answer.failure?.code == .upstreamProtocol && answer.calls.isEmpty, "\(kind) \(form)")
            }
        }
        let start =
            #"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c","name":"f","input":\#(arguments)}}"#
        let end = #"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#
        let answer = try DecodedAnswer(.anthropic, frames: [start, end])
        #expect(answer.failure?.code == .upstreamProtocol && answer.calls.isEmpty)
    }
}
