import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import Support

/// OpenAI's chat completions API, which DashScope's compatible mode and most open-source servers also use.
enum OpenAIDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        let model = try ChatMessages.model(in: body)
        let messages = try ChatMessages.messages(in: body["messages"])
        var ask = Ask(model: model, stream: body["stream"]?.bool ?? false)
        ask.tag = body["user"]?.string
        ask.question = ChatMessages.question(in: messages)
        ask.maximumTokens = (body["max_completion_tokens"] ?? body["max_tokens"])?.integer
        ask.includeUsage = body["stream_options"]?["include_usage"]?.bool ?? false
        ask.toolName = body["tools"]?[0]?["function"]?["name"]?.string
        let last = messages[messages.count - 1]
        ask.hasToolResult = last["role"]?.string == "tool"
        let continuesPrefix =
            last["partial"]?.bool ?? false || last["prefix"]?.bool ?? false || body["continue_final_message"]?.bool ?? false
        if continuesPrefix { ask.prefix = ChatMessages.prefix(in: messages) }
        return ask
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        OpenAIForm(answer: answer, ask: ask, number: number)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        let (type, code) = kind(status)
        return (["error": ["message": .string(message), "type": .string(type), "param": .null, "code": .string(code)]] as JSON).bytes
    }

    /// OpenAI's error type and code for a status.
    private static func kind(_ status: Int) -> (type: String, code: String) {
        switch status {
        case 401: ("invalid_request_error", "invalid_api_key")
        case 403: ("invalid_request_error", "permission_denied")
        case 404: ("invalid_request_error", "model_not_found")
        case 413: ("invalid_request_error", "request_too_large")
        case 429: ("rate_limit_error", "rate_limit_exceeded")
        case 503, 529: ("server_error", "overloaded")
        case 500...: ("server_error", "internal_error")
        default: ("invalid_request_error", "invalid_request")
        }
    }
}

/// An answer as `data: {...}` events. The constant parts of a token's event are built once.
final class OpenAIForm: AnswerForm {
    private let answer: Answer
    private let ask: Ask
    private let id: String
    private let created: Int
    /// The start of an event, up to the choices.
    private let base: [UInt8]
    /// The start of a word's event, up to its text, including the quote.
    private let wordHead: [UInt8]
    private let deltaTail: [UInt8]

    private static let delta = #"{"index":0,"delta":{"#

    init(answer: Answer, ask: Ask, number: Int) {
        self.answer = answer
        self.ask = ask
        id = "chatcmpl-sim-\(number)"
        created = WallClock.seconds
        var base: [UInt8] = Array("data: {".utf8)
        base.appendJSONMember("id", id)
        base.appendJSONMember("object", "chat.completion.chunk")
        base.appendJSONMember("created", created)
        base.appendJSONMember("model", ask.model)
        base.appendJSONName("choices")
        base.append(UInt8(ascii: "["))
        self.base = base
        wordHead = base + Array((Self.delta + #""content":""#).utf8)
        deltaTail = Array((#"},"finish_reason":null}]"# + (ask.includeUsage ? #","usage":null"# : "") + "}\n\n").utf8)
    }

    var streamType: String { "text/event-stream; charset=utf-8" }

    func start(_ writer: inout ChunkWriter) { write(delta: #""role":"assistant","content":"""#, to: &writer) }

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        switch piece {
        case .word(let index):
            writer.begin()
            writer.write(wordHead)
            writer.write(" w")
            writer.write(decimal: index)
            writer.write("\"")
            writer.write(deltaTail)
            writer.end()
        case .text(let text): write(delta: #""content":"# + text.quoted, to: &writer)
        case .reasoning: write(delta: #""content":null,"reasoning_content":"# + piece.text.quoted, to: &writer)
        case .toolCall(let fragment): write(fragment: fragment, to: &writer)
        }
    }

    /// Only the first fragment has the call's id and name. The id of the others is empty, as DashScope sends it.
    private func write(fragment: Int, to writer: inout ChunkWriter) {
        guard let call = answer.toolCall else { return }
        let arguments = call.arguments(of: fragment).quoted
        if fragment == 0 {
            let function = #"{"name":\#(call.name.quoted),"arguments":\#(arguments)}"#
            write(
                delta: #""content":null,"tool_calls":[{"index":0,"id":"call_\#(id)","type":"function","function":\#(function)}]"#,
                to: &writer)
        } else {
            let function = #"{"arguments":\#(arguments)}"#
            write(delta: #""tool_calls":[{"function":\#(function),"index":0,"id":"","type":"function"}]"#, to: &writer)
        }
    }

    private func write(delta: String, to writer: inout ChunkWriter) {
        writer.begin()
        writer.write(base)
        writer.buffer.writeString(Self.delta)
        writer.buffer.writeString(delta)
        writer.write(deltaTail)
        writer.end()
    }

    func end(total: Int, to writer: inout ChunkWriter) {
        writer.begin()
        writer.write(base)
        writer.buffer.writeString(Self.delta)
        writer.buffer.writeString(#"},"finish_reason":"\#(finishReason)"}]\#(ask.includeUsage ? #","usage":null"# : "")}"# + "\n\n")
        writer.end()
        if ask.includeUsage {
            writer.begin()
            writer.write(base)
            writer.buffer.writeString(#"],"usage":\#(usage(total))}"# + "\n\n")
            writer.end()
        }
        writer.begin()
        writer.write("data: [DONE]\n\n")
        writer.end()
    }

    func errorFrame(to writer: inout ChunkWriter) {
        writer.begin()
        writer.write("data: ")
        writer.write(wholeError)
        writer.write("\n\n")
        writer.end()
    }

    var wholeError: [UInt8] {
        Array(#"{"error":{"message":"the model is overloaded","type":"server_error","param":null,"code":"overloaded"}}"#.utf8)
    }

    func whole(total: Int, complete: Bool) -> [UInt8] {
        let said = answer.said(upTo: total)
        var message: JSONObject = JSONObject()
        message["role"] = "assistant"
        message["content"] = said.text.isEmpty && said.toolCall != nil ? .null : .string(said.text)
        if !said.reasoning.isEmpty { message["reasoning_content"] = .string(said.reasoning) }
        if let call = said.toolCall {
            message["tool_calls"] = [
                [
                    "index": 0, "id": .string("call_" + id), "type": "function",
                    "function": ["name": .string(call.name), "arguments": .string(call.arguments)],
                ]
            ]
        }
        var out: [UInt8] = [UInt8(ascii: "{")]
        out.appendJSONMember("id", id)
        out.appendJSONMember("object", "chat.completion")
        out.appendJSONMember("created", created)
        out.appendJSONMember("model", ask.model)
        out.appendJSONName("choices")
        out.append(contentsOf: #"[{"index":0,"message":"#.utf8)
        JSON.object(message).append(to: &out)
        out.append(contentsOf: (#","finish_reason":"# + (complete ? "\"\(finishReason)\"" : "null") + "}]").utf8)
        out.append(contentsOf: (#","usage":"# + usage(total) + "}").utf8)
        return out
    }

    private var finishReason: String { answer.isCut ? "length" : answer.toolCall == nil ? "stop" : "tool_calls" }

    private func usage(_ total: Int) -> String {
        let prompt = PromptTokens.count
        let details = answer.reasoning > 0 ? #","completion_tokens_details":{"reasoning_tokens":\#(min(total, answer.reasoning))}"# : ""
        return #"{"prompt_tokens":\#(prompt),"completion_tokens":\#(total),"total_tokens":\#(prompt + total)\#(details)}"#
    }
}
