import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import Support

/// DashScope's native text generation API. Every frame carries cumulative usage; `finish_reason` is the string "null" until the last frame.
enum DashScopeDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        let model = try ChatMessages.model(in: body)
        let input = body["input"]
        let messages: [JSON] =
            if let prompt = input?["prompt"]?.string { [["role": "user", "content": .string(prompt)]] } else {
                try ChatMessages.messages(in: input?["messages"])
            }
        let parameters = body["parameters"]
        var ask = Ask(model: model, stream: DashScopeFrames.areAsked(by: headers))
        ask.tag = body["user"]?.string
        ask.question = ChatMessages.question(in: messages)
        ask.toolName = parameters?["tools"]?[0]?["function"]?["name"]?.string
        ask.maximumTokens = parameters?["max_tokens"]?.integer
        ask.incremental = parameters?["incremental_output"]?.bool ?? false
        ask.plainText = parameters?["result_format"]?.string ?? "text" == "text"
        if messages[messages.count - 1]["partial"]?.bool ?? false { ask.prefix = ChatMessages.prefix(in: messages) }
        return ask
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        DashScopeForm(answer: answer, ask: ask, number: number)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        DashScopeFrames.error(status: status, message: message, number: number)
    }
}

/// Framing and errors shared by DashScope's text and speech streams.
enum DashScopeFrames {
    static let type = "text/event-stream;charset=UTF-8"

    /// Whether the headers request an event stream.
    static func areAsked(by headers: HTTPHeaders) -> Bool {
        headers["x-dashscope-sse"].contains { $0.lowercased() == "enable" }
            || headers["accept"].contains { $0.lowercased().contains("text/event-stream") }
    }

    /// A request id in UUID form.
    static func requestID(_ number: Int) -> String {
        let digits = String(number)
        return "00000000-0000-4000-8000-" + String(repeating: "0", count: max(0, 12 - digits.count)) + digits
    }

    /// Writes the fields before the data of a frame.
    static func writeHead(id: Int, to writer: inout ChunkWriter) {
        writer.write("id:")
        writer.write(decimal: id)
        writer.write("\nevent:result\n:HTTP_STATUS/200\ndata:")
    }

    /// Writes an error frame of a throttled request.
    static func writeError(id: Int, number: Int, to writer: inout ChunkWriter) {
        writer.begin()
        writer.write("id:")
        writer.write(decimal: id)
        writer.write("\nevent:error\n:HTTP_STATUS/429\ndata:")
        writer.write(error(status: 429, message: "Allocated quota exceeded, please increase your quota limit.", number: number))
        writer.write("\n\n")
        writer.end()
    }

    /// The JSON body of an error.
    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        (["code": .string(code(status)), "message": .string(message), "request_id": .string(requestID(number))] as JSON).bytes
    }

    /// DashScope's error code for a status.
    private static func code(_ status: Int) -> String {
        switch status {
        case 401: "invalid_api_key"
        case 403: "Workspace.AccessDenied"
        case 404: "model_not_found"
        case 429: "Throttling.AllocationQuota"
        case 503: "ModelUnavailable"
        case 504: "RequestTimeOut"
        case 500...: "InternalError"
        default: "InvalidParameter"
        }
    }
}

/// An answer in DashScope's frames.
private final class DashScopeForm: AnswerForm {
    private let answer: Answer
    private let ask: Ask
    private let number: Int
    private let requestID: [UInt8]
    private var frames = 0
    /// The content so far, JSON-escaped. Frames that are not incremental repeat it; incremental ones start empty.
    private var text: [UInt8] = []
    private var reasoning: [UInt8] = []
    private var arguments: [UInt8] = []

    init(answer: Answer, ask: Ask, number: Int) {
        self.answer = answer
        self.ask = ask
        self.number = number
        requestID = Array((#"},"request_id":""# + DashScopeFrames.requestID(number) + "\"}").utf8)
    }

    var streamType: String { DashScopeFrames.type }

    func start(_ writer: inout ChunkWriter) {}

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        if ask.incremental {
            text.removeAll(keepingCapacity: true)
            reasoning.removeAll(keepingCapacity: true)
            arguments.removeAll(keepingCapacity: true)
        }
        var fragment: Int?
        switch piece {
        case .word(let index):
            text.append(contentsOf: " w".utf8)
            text.appendDecimal(index)
        case .text(let words): text.append(contentsOf: words.quoted.utf8.dropFirst().dropLast())
        case .reasoning: reasoning.append(contentsOf: piece.text.utf8)
        case .toolCall(let index):
            fragment = index
            arguments.append(contentsOf: (answer.toolCall?.arguments(of: index) ?? "").quoted.utf8.dropFirst().dropLast())
        }
        writeFrame(fragment: fragment, finishReason: "null", total: total, to: &writer)
    }

    func end(total: Int, to writer: inout ChunkWriter) {
        if ask.incremental {
            text.removeAll()
            reasoning.removeAll()
        }
        let repeated = ask.incremental ? nil : answer.toolCall.map { $0.pieces - 1 }
        writeFrame(fragment: repeated, finishReason: finishReason, total: total, to: &writer)
    }

    func errorFrame(to writer: inout ChunkWriter) { DashScopeFrames.writeError(id: frames + 1, number: number, to: &writer) }

    /// Writes one frame with the buffered content.
    /// - Parameter fragment: Fragment of the tool call to include; nil for none.
    private func writeFrame(fragment: Int?, finishReason: String, total: Int, to writer: inout ChunkWriter) {
        frames += 1
        writer.begin()
        DashScopeFrames.writeHead(id: frames, to: &writer)
        if ask.plainText {
            writer.write(#"{"output":{"text":""#)
            writer.write(text)
            writer.write(#"","finish_reason":""#)
            writer.buffer.writeString(finishReason)
            writer.write("\"")
        } else {
            writer.write(#"{"output":{"choices":[{"message":{"content":""#)
            writer.write(text)
            writer.write("\"")
            if !reasoning.isEmpty {
                writer.write(#","reasoning_content":""#)
                writer.write(reasoning)
                writer.write("\"")
            }
            if let fragment { write(fragment: fragment, to: &writer) }
            writer.write(#","role":"assistant"},"finish_reason":""#)
            writer.buffer.writeString(finishReason)
            writer.write("\"}]")
        }
        writer.write(#"},"usage":{"total_tokens":"#)
        writer.write(decimal: PromptTokens.count + total)
        writer.write(#","output_tokens":"#)
        writer.write(decimal: total)
        writer.write(#","input_tokens":"#)
        writer.write(decimal: PromptTokens.count)
        writer.write(requestID)
        writer.write("\n\n")
        writer.end()
    }

    private var finishReason: String { answer.isCut ? "length" : answer.toolCall == nil ? "stop" : "tool_calls" }

    private func write(fragment: Int, to writer: inout ChunkWriter) {
        guard let call = answer.toolCall else { return }
        writer.write(#","tool_calls":[{"function":{"#)
        // Frames that are not incremental repeat the id and name, too.
        let opens = fragment == 0 || !ask.incremental
        if opens { writer.buffer.writeString(#""name":\#(call.name.quoted),"#) }
        writer.write(#""arguments":""#)
        writer.write(arguments)
        writer.buffer.writeString(#""},"index":0,"id":"\#(opens ? "call_\(number)" : "")","type":"function"}]"#)
    }

    func whole(total: Int, complete: Bool) -> [UInt8] {
        let said = answer.said(upTo: total)
        let reason = complete ? finishReason : "null"
        var output = JSONObject()
        if ask.plainText {
            output["text"] = .string(said.text)
            output["finish_reason"] = .string(reason)
        } else {
            var message = JSONObject()
            message["role"] = "assistant"
            message["content"] = .string(said.text)
            if !said.reasoning.isEmpty { message["reasoning_content"] = .string(said.reasoning) }
            if let call = said.toolCall {
                message["tool_calls"] = [
                    [
                        "function": ["name": .string(call.name), "arguments": .string(call.arguments)], "index": 0,
                        "id": .string("call_\(number)"), "type": "function",
                    ]
                ]
            }
            output["choices"] = [["finish_reason": .string(reason), "message": .object(message)]]
        }
        let usage: JSON = [
            "total_tokens": .integer(PromptTokens.count + total), "output_tokens": .integer(total),
            "input_tokens": .integer(PromptTokens.count),
        ]
        return (["output": .object(output), "usage": usage, "request_id": .string(DashScopeFrames.requestID(number))] as JSON).bytes
    }

    var wholeError: [UInt8] {
        DashScopeFrames.error(status: 429, message: "Allocated quota exceeded, please increase your quota limit.", number: number)
    }
}
