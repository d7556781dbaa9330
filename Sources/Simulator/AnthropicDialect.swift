import Contract
import JSONCodec
import NIOCore
import NIOHTTP1

/// Anthropic's Messages API. Like the provider, it requires `max_tokens` and the version header and accepts only the roles user and
/// assistant. A last assistant message is a prefix to continue.
enum AnthropicDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        var ask = try prompt(body, headers: headers)
        guard let limit = body["max_tokens"]?.integer, limit > 0 else { throw Refusal(400, "max_tokens: Field required") }
        ask.stream = body["stream"]?.bool ?? false
        ask.maximumTokens = limit
        return ask
    }

    /// What a message and a count of its tokens have in common.
    fileprivate static func prompt(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        let model = try ChatMessages.model(in: body)
        guard headers.contains(name: "anthropic-version") else { throw Refusal(400, "anthropic-version: header is required") }
        let messages = try ChatMessages.messages(in: body["messages"])
        for message in messages {
            let role = message["role"]?.string ?? ""
            guard role == "user" || role == "assistant" else { throw Refusal(400, "messages: Unexpected role \"\(role.prefix(40))\"") }
        }
        var ask = Ask(model: model, stream: false)
        ask.tag = body["user"]?.string
        ask.question = ChatMessages.question(in: messages)
        ask.toolName = body["tools"]?[0]?["name"]?.string
        ask.prefix = ChatMessages.prefix(in: messages)
        if ask.prefix?.last?.isWhitespace == true {
            throw Refusal(400, "messages: final assistant content cannot end with trailing whitespace")
        }
        return ask
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        AnthropicForm(answer: answer, ask: ask, number: number)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        let error: JSON = ["type": .string(type(status)), "message": .string(message)]
        return (["type": "error", "error": error, "request_id": .string("req_sim\(number)")] as JSON).bytes
    }

    /// Anthropic's error type for a status.
    private static func type(_ status: Int) -> String {
        switch status {
        case 401: "authentication_error"
        case 402: "billing_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 429: "rate_limit_error"
        case 504: "timeout_error"
        case 503, 529: "overloaded_error"
        case 500...: "api_error"
        default: "invalid_request_error"
        }
    }
}

/// Anthropic's count of a message's tokens. Every prompt has `PromptTokens.count`, as in the usage of an answer.
enum AnthropicTokenCountDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask { try AnthropicDialect.prompt(body, headers: headers) }

    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) { SimulatedDocument.plan(script) }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        let document: JSON = ["input_tokens": .integer(PromptTokens.count)]
        return DocumentForm(document.bytes)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        AnthropicDialect.error(status: status, message: message, number: number)
    }
}

/// An answer as `message_start`, consecutive content blocks, `message_delta` and `message_stop`.
private final class AnthropicForm: AnswerForm {
    private enum Block { case thinking, text, toolUse }

    private let answer: Answer
    private let ask: Ask
    private let id: String
    /// The content block that is being written.
    private var open: Block?
    private var blocks = 0
    /// The start of a word's event, up to its text.
    private var wordHead: [UInt8] = []

    init(answer: Answer, ask: Ask, number: Int) {
        self.answer = answer
        self.ask = ask
        id = "sim\(number)"
    }

    var streamType: String { "text/event-stream; charset=utf-8" }

    func start(_ writer: inout ChunkWriter) {
        let usage =
            #"{"input_tokens":\#(PromptTokens.count),"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}"#
        let message =
            #"{"id":"msg_\#(id)","type":"message","role":"assistant","model":\#(ask.model.quoted),"content":[],"#
            + #""stop_reason":null,"stop_sequence":null,"usage":\#(usage)}"#
        event("message_start", #""message":\#(message)"#, to: &writer)
        writer.begin()
        writer.write("event: ping\ndata: {\"type\": \"ping\"}\n\n")
        writer.end()
    }

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        switch piece {
        case .word(let index):
            enter(.text, to: &writer)
            writer.begin()
            writer.write(wordHead)
            writer.write(" w")
            writer.write(decimal: index)
            writer.write("\"}}\n\n")
            writer.end()
        case .text(let text):
            enter(.text, to: &writer)
            delta(#""type":"text_delta","text":\#(text.quoted)"#, to: &writer)
        case .reasoning:
            enter(.thinking, to: &writer)
            delta(#""type":"thinking_delta","thinking":\#(piece.text.quoted)"#, to: &writer)
        case .toolCall(let fragment):
            enter(.toolUse, to: &writer)
            delta(#""type":"input_json_delta","partial_json":\#((answer.toolCall?.arguments(of: fragment) ?? "").quoted)"#, to: &writer)
        }
    }

    func end(total: Int, to writer: inout ChunkWriter) {
        close(to: &writer)
        let usage = #"{"output_tokens":\#(total)}"#
        event("message_delta", #""delta":{"stop_reason":"\#(stopReason)","stop_sequence":null},"usage":\#(usage)"#, to: &writer)
        writer.begin()
        writer.write("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
        writer.end()
    }

    func errorFrame(to writer: inout ChunkWriter) {
        writer.begin()
        writer.write("event: error\ndata: ")
        writer.write(wholeError)
        writer.write("\n\n")
        writer.end()
    }

    var wholeError: [UInt8] { Array(#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#.utf8) }

    func whole(total: Int, complete: Bool) -> [UInt8] {
        let said = answer.said(upTo: total)
        var content: [JSON] = []
        if !said.reasoning.isEmpty {
            content.append(["type": "thinking", "thinking": .string(said.reasoning), "signature": "c2ltdWxhdGVk"])
        }
        if !said.text.isEmpty { content.append(["type": "text", "text": .string(said.text)]) }
        if let call = said.toolCall, let input = try? JSON(parsing: call.arguments) {
            content.append(["type": "tool_use", "id": .string("toolu_" + id), "name": .string(call.name), "input": input])
        }
        let message: JSON = [
            "id": .string("msg_" + id), "type": "message", "role": "assistant", "model": .string(ask.model), "content": .array(content),
            "stop_reason": complete ? .string(stopReason) : .null, "stop_sequence": .null,
            "usage": ["input_tokens": .integer(PromptTokens.count), "output_tokens": .integer(total)],
        ]
        return message.bytes
    }

    private var stopReason: String { answer.isCut ? "max_tokens" : answer.toolCall == nil ? "end_turn" : "tool_use" }

    // MARK: blocks

    /// Opens a content block of this kind unless it is open already.
    private func enter(_ block: Block, to writer: inout ChunkWriter) {
        guard open != block else { return }
        close(to: &writer)
        open = block
        let content =
            switch block {
            case .thinking: #"{"type":"thinking","thinking":"","signature":""}"#
            case .text: #"{"type":"text","text":""}"#
            case .toolUse: #"{"type":"tool_use","id":"toolu_\#(id)","name":\#((answer.toolCall?.name ?? "").quoted),"input":{}}"#
            }
        event("content_block_start", #""index":\#(blocks),"content_block":\#(content)"#, to: &writer)
        let head = #"{"type":"content_block_delta","index":\#(blocks),"delta":{"type":"text_delta","text":""#
        wordHead = Array(("event: content_block_delta\ndata: " + head).utf8)
    }

    /// Closes the open content block, if any.
    private func close(to writer: inout ChunkWriter) {
        guard let open else { return }
        if open == .thinking { delta(#""type":"signature_delta","signature":"c2ltdWxhdGVk""#, to: &writer) }
        event("content_block_stop", #""index":\#(blocks)"#, to: &writer)
        blocks += 1
        self.open = nil
    }

    private func delta(_ delta: String, to writer: inout ChunkWriter) {
        event("content_block_delta", #""index":\#(blocks),"delta":{\#(delta)}"#, to: &writer)
    }

    /// Writes a server-sent event whose data is a JSON object with `type` and the given members.
    private func event(_ name: String, _ members: String, to writer: inout ChunkWriter) {
        writer.begin()
        writer.buffer.writeString("event: \(name)\ndata: {\"type\":\"\(name)\",\(members)}\n\n")
        writer.end()
    }
}
