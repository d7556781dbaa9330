import Contract
import Testing

@testable import Upstream

/// A recorded stream and the expected result.
struct Recorded: Sendable, CustomTestStringConvertible {
    var name: String
    var kind: UpstreamConfiguration.Kind
    var stream: String
    var outputs: [UpstreamOutput] = []
    var chunks = 0
    var isComplete = true
    /// The expected failure, if any.
    var failure: FailureCode?
    var status: Int?

    var testDescription: String { "\(kind) \(name)" }
}

extension Recorded {
    static let all = openAI + dashScope + anthropic + ollama

    private static let openAI: [Recorded] = [
        Recorded(
            name: "text, reasoning and usage", kind: .openai,
            stream: """
                data: {"choices":[{"delta":{"content":"","role":"assistant"},"index":0,"finish_reason":null}],"usage":null,"model":"qwen-plus"}

                data: {"choices":[{"delta":{"content":null,"reasoning_content":"想"},"index":0,"finish_reason":null}]}

                data: {"choices":[{"delta":{"content":"你好 \\ud83c\\udf0d"},"index":0,"finish_reason":null}]}

                : keep-alive

                data: {"choices":[{"finish_reason":"stop","delta":{"content":"","reasoning_content":null},"index":0}]}

                data: {"choices":[],"usage":{"prompt_tokens":22,"completion_tokens":382,"total_tokens":404,"completion_tokens_details":{"reasoning_tokens":210}}}

                data: [DONE]


                """,
            outputs: [
                .reasoning("想"), .text("你好 🌍"), .usage(promptTokens: 22, completionTokens: 382, details: TokenDetails(reasoning: 210)),
                .finished(.stop),
            ], chunks: 2),
        Recorded(
            name: "two tool calls in fragments", kind: .openai,
            stream: """
                data: {"choices":[{"delta":{"content":null,"tool_calls":[{"index":0,"id":"call_0b","type":"function","function":{"name":"get_weather","arguments":"{\\"loc"}}]}}]}

                data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"ation\\": 1}"},"index":0,"id":"","type":"function"}]}}]}

                data: {"choices":[{"delta":{"tool_calls":[{"index":1,"id":"call_1","function":{"name":"now","arguments":""}}]}}]}

                data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

                data: [DONE]
                """,
            outputs: [
                .toolCall(ToolCall(index: 0, callID: "call_0b", name: "get_weather", arguments: #"{"location": 1}"#)),
                .toolCall(ToolCall(index: 1, callID: "call_1", name: "now", arguments: "{}")), .finished(.toolCalls),
            ], chunks: 3),
        Recorded(
            name: "arguments that are no JSON", kind: .openai,
            stream: """
                data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{oops"}}]}}]}

                data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}


                """, chunks: 1, isComplete: false, failure: .upstreamProtocol),
        Recorded(
            name: "the old function_call", kind: .openai,
            stream: """
                data: {"choices":[{"delta":{"function_call":{"name":"f","arguments":"{\\"a\\":"}}}]}

                data: {"choices":[{"delta":{"function_call":{"arguments":"2}"}},"finish_reason":"function_call"}]}


                """,
            outputs: [.toolCall(ToolCall(index: 0, callID: "call_0", name: "f", arguments: #"{"a":2}"#)), .finished(.toolCalls)], chunks: 2),
        Recorded(
            name: "an end mark without a reason", kind: .openai,
            stream: "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata: [DONE]\r\n\r\n",
            outputs: [.text("a"), .finished(.stop)], chunks: 1),
        Recorded(
            name: "neither", kind: .openai, stream: "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", outputs: [.text("a")],
            chunks: 1,
            isComplete: false),
        Recorded(
            name: "rubbish behind the finish", kind: .openai,
            stream: "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\ndata: {rubbish\n\n",
            outputs: [.text("a"), .finished(.length)], chunks: 1),
        Recorded(
            name: "an error frame", kind: .openai,
            stream: "data: {\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\"code\":503}}\n\n", isComplete: false,
            failure: .upstreamError, status: 503),
        Recorded(
            name: "vLLM's error frame", kind: .openai, stream: "data: {\"object\":\"error\",\"message\":\"too long\",\"code\":400}\n\n",
            isComplete: false, failure: .invalidRequest, status: 400),
        Recorded(
            name: "an error frame without a code", kind: .openai, stream: "data: {\"error\":\"oh no\"}\n\n", isComplete: false,
            failure: .upstreamProtocol),
        Recorded(
            name: "a reasoning of the other name and content in parts", kind: .openai,
            stream: """
                data: {"choices":[{"delta":{"reasoning":"hm"}}]}

                data: {"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},"finish_reason":"eos"}]}


                """, outputs: [.reasoning("hm"), .text("ab"), .finished(.stop)], chunks: 2),
    ]

    private static let dashScope: [Recorded] = [
        Recorded(
            name: "text with usage on every frame", kind: .dashscope,
            stream: """
                id:1
                event:result
                :HTTP_STATUS/200
                data:{"output":{"choices":[{"message":{"content":"你","role":"assistant"},"finish_reason":"null"}]},"usage":{"total_tokens":290,"output_tokens":3,"input_tokens":287},"request_id":"r"}

                id:2
                event:result
                :HTTP_STATUS/200
                data:{"output":{"choices":[{"message":{"content":"好","reasoning_content":"","role":"assistant"},"finish_reason":"stop"}]},"usage":{"total_tokens":291,"output_tokens":4,"input_tokens":287},"request_id":"r"}


                """,
            outputs: [
                .text("你"), .usage(promptTokens: 287, completionTokens: 3), .text("好"), .usage(promptTokens: 287, completionTokens: 4),
                .finished(.stop),
            ], chunks: 2),
        Recorded(
            name: "throttled inside a 200", kind: .dashscope,
            stream: """
                id:1
                event:error
                :HTTP_STATUS/429
                data:{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded","request_id":"r"}


                """, isComplete: false, failure: .rateLimited, status: 429),
        Recorded(
            name: "inspection", kind: .dashscope,
            stream: "event:error\n:HTTP_STATUS/400\ndata:{\"code\":\"DataInspectionFailed\",\"message\":\"m\"}\n\n", isComplete: false,
            failure: .contentFiltered, status: 400),
        Recorded(
            name: "pictures: content in parts", kind: .dashscope,
            stream:
                "data:{\"output\":{\"choices\":[{\"message\":{\"content\":[{\"text\":\"a cat\"}]},\"finish_reason\":\"stop\"}]}}\n\n",
            outputs: [.text("a cat"), .finished(.stop)], chunks: 1),
        Recorded(
            name: "a tool call", kind: .dashscope,
            stream: """
                data:{"output":{"choices":[{"message":{"content":"","tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\\"a"}}]},"finish_reason":"null"}]}}

                data:{"output":{"choices":[{"message":{"content":"","tool_calls":[{"index":0,"id":"","type":"function","function":{"arguments":"\\":1}"}}]},"finish_reason":"tool_calls"}]}}


                """,
            outputs: [.toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: #"{"a":1}"#)), .finished(.toolCalls)], chunks: 2),
        Recorded(
            name: "no end", kind: .dashscope,
            stream: "data:{\"output\":{\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"null\"}]}}\n\n",
            outputs: [.text("a")],
            chunks: 1, isComplete: false),
    ]

    private static let anthropic: [Recorded] = [
        Recorded(
            name: "thinking, text and a tool", kind: .anthropic,
            stream: """
                event: message_start
                data: {"type":"message_start","message":{"id":"m","role":"assistant","content":[],"usage":{"input_tokens":20,"cache_read_input_tokens":5,"output_tokens":1}}}

                event: content_block_start
                data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}

                event: content_block_delta
                data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

                event: content_block_delta
                data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}

                event: content_block_stop
                data: {"type":"content_block_stop","index":0}

                event: ping
                data: {"type": "ping"}

                event: content_block_delta
                data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}}

                event: content_block_start
                data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{}}}

                event: content_block_delta
                data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

                event: content_block_delta
                data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\\"city\\":\\"北京\\"}"}}

                event: message_delta
                data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}

                event: message_stop
                data: {"type":"message_stop"}


                """,
            outputs: [
                .usage(promptTokens: 25, completionTokens: nil, details: TokenDetails(cached: 5)), .reasoning("hm"),
                .reasoningMark(.signature("c2ln")), .text("Hello"), .usage(promptTokens: nil, completionTokens: 15),
                .toolCall(ToolCall(index: 0, callID: "toolu_1", name: "get_weather", arguments: #"{"city":"北京"}"#)), .finished(.toolCalls),
            ], chunks: 6),
        Recorded(
            name: "overloaded inside", kind: .anthropic,
            stream: "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            isComplete: false, failure: .overloaded),
        Recorded(
            name: "cut off", kind: .anthropic,
            stream: "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
            outputs: [.text("a")], chunks: 1, isComplete: false),
        Recorded(
            name: "redacted thinking and a stop sequence", kind: .anthropic,
            stream: """
                data: {"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"ZGF0YQ=="}}

                data: {"type":"content_block_stop","index":0}

                data: {"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":"","signature":""}}

                data: {"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"c2ln"}}

                data: {"type":"content_block_start","index":2,"content_block":{"type":"text","text":"a"}}

                data: {"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"}}


                """,
            outputs: [
                .reasoningMark(.redacted("ZGF0YQ==")), .reasoningMark(.signature("c2ln")), .text("a"),
                .finished(.stop, stopSequence: "END"),
            ], chunks: 3),
        Recorded(
            name: "out of room", kind: .anthropic,
            stream: "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":{\"output_tokens\":9}}\n\n",
            outputs: [.usage(promptTokens: nil, completionTokens: 9), .finished(.length)]),
    ]

    private static let ollama: [Recorded] = [
        Recorded(
            name: "thinking and text", kind: .ollama,
            stream: """
                {"model":"llama","created_at":"t","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}
                {"model":"llama","message":{"role":"assistant","content":"你好"},"done":false}
                {"model":"llama","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":298}
                """,
            outputs: [.reasoning("hm"), .text("你好"), .usage(promptTokens: 26, completionTokens: 298), .finished(.stop)], chunks: 2),
        Recorded(
            name: "tools", kind: .ollama,
            stream: """
                {"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}},{"function":{"name":"g","arguments":{}}}]},"done":false}
                {"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":5}

                """,
            outputs: [
                .usage(promptTokens: nil, completionTokens: 5),
                .toolCall(ToolCall(index: 0, callID: "call_0", name: "f", arguments: #"{"a":1}"#)),
                .toolCall(ToolCall(index: 1, callID: "call_1", name: "g", arguments: "{}")), .finished(.toolCalls),
            ], chunks: 1),
        Recorded(
            name: "an error line", kind: .ollama, stream: "{\"error\":\"model runner has stopped\"}\n", isComplete: false,
            failure: .upstreamProtocol),
        Recorded(
            name: "no end", kind: .ollama, stream: "{\"message\":{\"content\":\"a\"},\"done\":false}\n", outputs: [.text("a")], chunks: 1,
            isComplete: false),
        Recorded(
            name: "objects over several lines", kind: .ollama,
            stream: """
                {
                  "message": {
                    "role": "assistant",
                    "content": "a } \\" {\\n"
                  },
                  "done": false
                }{"message":{"content":"b"},"done":false} {
                  "message": {"content": ""}, "done": true,
                  "done_reason": "stop", "prompt_eval_count": 2,

                  "eval_count": 3
                }

                """,
            outputs: [.text("a } \" {\n"), .text("b"), .usage(promptTokens: 2, completionTokens: 3), .finished(.stop)], chunks: 2),
        Recorded(
            name: "a cut object", kind: .ollama, stream: "{\n\"message\":{\"content\":\"a\"},\n", isComplete: false,
            failure: .upstreamProtocol),
        Recorded(name: "rubbish", kind: .ollama, stream: "hello\n", isComplete: false, failure: .upstreamProtocol),
    ]
}
