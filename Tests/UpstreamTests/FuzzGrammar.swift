import Foundation
import TestSupport

@testable import Upstream

/// Generates almost valid response bodies: templates of real responses with unusual values, unusual framing and changed bytes.
enum FuzzGrammar {
    enum Dialect: String, CaseIterable, Sendable {
        case openai, document, dashscope, dashScopeDocument, anthropic, anthropicDocument, ollama, samples, speech

        /// The kind of upstream whose decoder reads this; nil for speech.
        var kind: UpstreamConfiguration.Kind? {
            switch self {
            case .openai, .document: .openai
            case .dashscope, .dashScopeDocument: .dashscope
            case .anthropic, .anthropicDocument: .anthropic
            case .ollama: .ollama
            case .samples, .speech: nil
            }
        }

        var contentType: String {
            switch self {
            case .document, .dashScopeDocument, .anthropicDocument: "application/json"
            case .ollama: "application/x-ndjson"
            case .samples: "audio/pcm"
            default: "text/event-stream"
            }
        }
    }

    /// `$n` number, `$s` string, `$f` finish reason, `$c` list of tool calls, `$a` anything.
    private static func templates(_ dialect: Dialect) -> [String] {
        switch dialect {
        case .openai:
            [
                #"{"choices":[{"index":0,"delta":{"content":$s},"finish_reason":null}]}"#,
                #"{"choices":[{"index":$n,"delta":{"content":$s,"reasoning_content":$s,"refusal":$s},"finish_reason":$f}],"usage":$a}"#,
                #"{"choices":[{"delta":{"tool_calls":$c},"finish_reason":$f}],"usage":{"prompt_tokens":$n,"completion_tokens":$n}}"#,
                #"{"choices":[{"delta":{"content":[{"type":"text","text":$s},$a]}}]}"#, #"{"choices":[],"usage":{"prompt_tokens":$n}}"#,
                #"{"error":{"message":$s,"code":$a,"type":$s}}"#, #"{"object":"error","message":$s,"code":$n}"#, "[DONE]",
                #"{"choices":[{"delta":{"function_call":{"name":$s,"arguments":$s}}}]}"#,
                #"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":$a},{"type":$s,"text":$s}],"tool_calls":$c}}]}"#,
                #"{"choices":null,"error_type":$s,"error_message":$s}"#,
            ]
        case .document:
            [
                #"{"choices":[{"message":{"content":$s,"reasoning":$s,"tool_calls":$c},"finish_reason":$f}],"usage":{"prompt_tokens":$n,"completion_tokens":$n}}"#,
                #"{"error":$a,"message":$s}"#, #"{"choices":$a}"#,
            ]
        case .dashscope:
            [
                #"{"output":{"choices":[{"message":{"content":$s,"role":"assistant"},"finish_reason":"null"}]},"usage":{"input_tokens":$n,"output_tokens":$n}}"#,
                #"{"output":{"choices":[{"message":{"content":$s,"reasoning_content":$s,"tool_calls":$c},"finish_reason":$f}]},"usage":$a,"request_id":$s}"#,
                #"{"code":$s,"message":$s,"request_id":$s}"#, #"{"output":$a}"#,
                #"{"output":{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}}"#,
                #"{"output":{"text":$s,"finish_reason":$f}}"#,
            ]
        case .dashScopeDocument:
            [
                #"{"output":{"choices":[{"message":{"content":$s,"reasoning_content":$s,"tool_calls":$c},"finish_reason":$f}]},"usage":$a}"#,
                #"{"output":{"text":$s,"finish_reason":$f},"usage":{"input_tokens":$n,"output_tokens":$n}}"#,
                #"{"output":$a,"message":$s}"#,
            ]
        case .anthropic:
            [
                #"{"type":"message_start","message":{"usage":{"input_tokens":$n,"cache_read_input_tokens":$n,"cache_creation_input_tokens":$n,"output_tokens":$n}}}"#,
                #"{"type":"content_block_start","index":$n,"content_block":{"type":"tool_use","id":$s,"name":$s,"input":$a}}"#,
                #"{"type":"content_block_delta","index":$n,"delta":{"type":"text_delta","text":$s}}"#,
                #"{"type":"content_block_delta","index":$n,"delta":{"thinking":$s}}"#,
                #"{"type":"content_block_delta","index":$n,"delta":{"partial_json":$s}}"#,
                #"{"type":"message_delta","delta":{"stop_reason":$f},"usage":{"output_tokens":$n}}"#, #"{"type":"message_stop"}"#,
                #"{"type":"error","error":{"type":$s,"message":$s}}"#, #"{"type":"ping"}"#,
            ]
        case .anthropicDocument:
            [
                #"{"type":"message","content":[{"type":"text","text":$s},{"type":"thinking","thinking":$s},{"type":"tool_use","id":$s,"name":$s,"input":$a}],"stop_reason":$f,"usage":{"input_tokens":$n,"output_tokens":$n}}"#,
                #"{"content":$a,"stop_reason":$f}"#, #"{"type":"error","error":$a}"#,
            ]
        case .ollama:
            [
                #"{"message":{"role":"assistant","content":$s},"done":false}"#,
                #"{"message":{"content":$s,"thinking":$s,"tool_calls":$c},"done":$a}"#,
                #"{"done":true,"done_reason":$f,"prompt_eval_count":$n,"eval_count":$n}"#, #"{"error":$a}"#,
            ]
        case .samples: ["$a"]
        case .speech:
            [
                #"{"output":{"audio":{"data":"AQIDBA==","url":$s},"finish_reason":"null"},"usage":$a}"#,
                #"{"output":{"audio":{"data":$s},"finish_reason":$f}}"#, #"{"output":{"audio":{"data":""},"finish_reason":"stop"}}"#,
                #"{"code":$s,"message":$s}"#,
            ]
        }
    }

    private static let numbers = [
        "0", "1", "2", "17", "-1", "3.5", "2.0", "1e3", "9007199254740993", "9223372036854775807", "-9223372036854775808",
        "9223372036854775808", "1e308", "1e400", "-1e400", "1e-400", "-0", "00",
    ]
    private static let strings = [
        #""""#, #""Hello""#, #""你好。""#, #""a\nb""#, #""\u0000""#, #""\ud83d""#, #""\ud83d\ude00""#, #""null""#, #""{\"a\":1}""#, #""[""#,
        #""{\"a\":\"\\uxxxx\"}""#, #""\ude00""#, #"{"a":"\uxxxx"}"#, #"{"a":1}"#, #""AQID""#, #""A===""#, #""insufficient_quota""#,
        #""Throttling.RateQuota""#, #""429""#, #""data_inspection_failed""#, #""call_1""#,
    ]
    private static let reasons = [
        "null", #""network_error""#, #""max_tokens""#, #""null""#, #""stop""#, #""length""#, #""tool_calls""#, #""content_filter""#,
        #""end_turn""#, #""tool_use""#, #""""#,
    ]

    private static func anything(_ random: inout SplitMix64, depth: Int = 3) -> String {
        switch Int.random(in: 0..<(depth > 0 ? 9 : 6), using: &random) {
        case 0: "null"
        case 1: Bool.random(using: &random) ? "true" : "false"
        case 2: #""\#(String(repeating: "x", count: Int.random(in: 0...300, using: &random)))""#
        case 3: "{}"
        case 4: numbers.randomElement(using: &random) ?? "0"
        case 5: strings.randomElement(using: &random) ?? "0"
        case 6: "[\(anything(&random, depth: depth - 1)),\(anything(&random, depth: depth - 1))]"
        case 7: #"{"a":\#(anything(&random, depth: depth - 1)),"a":\#(anything(&random, depth: depth - 1))}"#
        default: String(repeating: "[", count: 70) + String(repeating: "]", count: 70)
        }
    }

    private static func calls(_ random: inout SplitMix64) -> String {
        let calls = (0..<Int.random(in: 0...3, using: &random)).map { _ in
            fill(#"{"index":$n,"id":$s,"type":"function","function":{"name":$s,"arguments":$s}}"#, &random)
        }
        return "[" + calls.joined(separator: ",") + "]"
    }

    private static func fill(_ template: String, _ random: inout SplitMix64) -> String {
        var out = ""
        var rest = template[...]
        while let place = rest.firstIndex(of: "$") {
            out += rest[..<place]
            let kind = rest[rest.index(after: place)]
            let isOdd = Int.random(in: 0..<12, using: &random) == 0
            switch isOdd ? "a" : kind {
            case "n": out += numbers.randomElement(using: &random) ?? ""
            case "s": out += strings.randomElement(using: &random) ?? ""
            case "f": out += reasons.randomElement(using: &random) ?? ""
            case "c": out += calls(&random)
            default: out += anything(&random)
            }
            rest = rest[rest.index(place, offsetBy: 2)...]
        }
        return out + rest
    }

    /// A body before `mutate`.
    static func body(_ dialect: Dialect, _ random: inout SplitMix64) -> [UInt8] {
        let templates = templates(dialect)
        func item(_ random: inout SplitMix64) -> String { fill(templates.randomElement(using: &random) ?? "", &random) }
        switch dialect {
        case .samples: return (0..<Int.random(in: 0...400, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
        case .document, .dashScopeDocument, .anthropicDocument: return Array(item(&random).utf8)
        case .ollama:
            return (0..<Int.random(in: 0...8, using: &random)).flatMap { _ in
                Array((item(&random) + (Int.random(in: 0..<6, using: &random) == 0 ? "\r\n" : "\n")).utf8)
            }
        default:
            let lineEnd = ["\n", "\n", "\r\n", "\r"].randomElement(using: &random) ?? "\n"
            var text = Int.random(in: 0..<10, using: &random) == 0 ? "\u{FEFF}" : ""
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: text += ":HTTP_STATUS/429" + lineEnd
                case 1: text += "event: error" + lineEnd
                case 2: text += "event:\(String(repeating: "e", count: 200))" + lineEnd
                case 3: text += "id: 1\(lineEnd)retry: 99999999999999999999" + lineEnd
                default: break
                }
                text += "data: " + item(&random) + lineEnd + (Int.random(in: 0..<10, using: &random) == 0 ? "" : lineEnd)
            }
            return Array(text.utf8)
        }
    }

    private static let bits: [[UInt8]] = [
        "{", "}", "[", "]", "\"", ":", ",", "\n\n", "\r", "\r\n", "data: ", "data:", "event: error\n", "\\u", "\u{FEFF}", "null", "-",
        "9223372036854775807", "e999", "\0", "[DONE]", "é",
    ].map { Array($0.utf8) }

    static func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard !bytes.isEmpty else { return }
            let place = Int.random(in: 0..<bytes.count, using: &random)
            let end = min(bytes.count, place + Int.random(in: 1...16, using: &random))
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.removeSubrange(place..<end)
            case 2: bytes.insert(contentsOf: bits.randomElement(using: &random) ?? [], at: place)
            case 3: bytes.insert(contentsOf: bytes[place..<end], at: place)
            case 4: bytes.removeSubrange(place...)
            default: bytes.swapAt(place, Int.random(in: 0..<bytes.count, using: &random))
            }
        }
    }

    /// The bytes in random pieces.
    static func slices(_ bytes: [UInt8], _ random: inout SplitMix64) -> [ArraySlice<UInt8>] {
        let longest = [1, 7, 60, 1_000].randomElement(using: &random) ?? 1
        var pieces: [ArraySlice<UInt8>] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Int.random(in: 1...longest, using: &random)
            pieces.append(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        return pieces
    }
}
