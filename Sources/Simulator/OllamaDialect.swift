import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import Support

/// Ollama's chat API: one JSON object per line; the last has `done:true` and the token counts. It streams by default, continues a last
/// assistant message, and sends tool calls complete.
enum OllamaDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        let model = try ChatMessages.model(in: body)
        let messages = try ChatMessages.messages(in: body["messages"])
        var ask = Ask(model: model, stream: body["stream"]?.bool ?? true)
        ask.tag = body["user"]?.string
        ask.maximumTokens = body["options"]?["num_predict"]?.integer.flatMap { $0 < 0 ? nil : $0 }
        ask.question = ChatMessages.question(in: messages)
        ask.toolName = body["tools"]?[0]?["function"]?["name"]?.string
        ask.prefix = ChatMessages.prefix(in: messages)
        return ask
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm { OllamaForm(answer: answer, ask: ask) }

    static func error(status: Int, message: String, number: Int) -> [UInt8] { (["error": .string(message)] as JSON).bytes }
}

/// An answer as lines of JSON.
private final class OllamaForm: AnswerForm {
    private let answer: Answer
    private let began = TokenClock.now
    /// The start of a line, up to the message.
    private let base: [UInt8]
    private let wordHead: [UInt8]

    init(answer: Answer, ask: Ask) {
        self.answer = answer
        var base: [UInt8] = [UInt8(ascii: "{")]
        base.appendJSONMember("model", ask.model)
        base.appendJSONMember("created_at", WallClock.timestamp)
        base.appendJSONName("message")
        self.base = base
        wordHead = base + Array(#"{"role":"assistant","content":""#.utf8)
    }

    var streamType: String { "application/x-ndjson" }
    var wholeType: String { "application/json; charset=utf-8" }

    func start(_ writer: inout ChunkWriter) {}

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        switch piece {
        case .word(let index):
            writer.begin()
            writer.write(wordHead)
            writer.write(" w")
            writer.write(decimal: index)
            writer.write("\"},\"done\":false}\n")
            writer.end()
        case .text(let text): line(#"{"role":"assistant","content":\#(text.quoted)}"#, done: #","done":false}"#, to: &writer)
        case .reasoning:
            line(#"{"role":"assistant","content":"","thinking":\#(piece.text.quoted)}"#, done: #","done":false}"#, to: &writer)
        case .toolCall(let fragment):
            // Earlier fragments count as tokens, but the provider sends a call only when it is complete.
            guard let call = answer.toolCall, !call.isCut, fragment == call.pieces - 1 else { return }
            line(#"{"role":"assistant","content":"",\#(Self.calls(call))}"#, done: #","done":false}"#, to: &writer)
        }
    }

    func end(total: Int, to writer: inout ChunkWriter) {
        line(#"{"role":"assistant","content":""}"#, done: done(total, complete: true), to: &writer)
    }

    func errorFrame(to writer: inout ChunkWriter) {
        writer.begin()
        writer.write(wholeError)
        writer.write("\n")
        writer.end()
    }

    var wholeError: [UInt8] { Array(#"{"error":"an error was encountered while running the model: simulated"}"#.utf8) }

    func whole(total: Int, complete: Bool) -> [UInt8] {
        let said = answer.said(upTo: total)
        var message = #"{"role":"assistant","content":"# + said.text.quoted
        if !said.reasoning.isEmpty { message += #","thinking":"# + said.reasoning.quoted }
        if let call = said.toolCall, !call.isCut { message += "," + Self.calls(call) }
        return base + Array((message + "}" + done(total, complete: complete)).utf8)
    }

    private static func calls(_ call: SimulatedToolCall) -> String {
        #""tool_calls":[{"function":{"name":\#(call.name.quoted),"arguments":\#(call.arguments)}}]"#
    }

    /// The members after the message: `done`, and after a complete answer also reason, durations and token counts.
    private func done(_ total: Int, complete: Bool) -> String {
        guard complete else { return #","done":false}"# }
        let elapsed = TokenClock.now - began
        return
            #","done":true,"done_reason":"\#(answer.isCut ? "length" : "stop")","total_duration":\#(elapsed),"load_duration":0,"prompt_eval_count":\#(PromptTokens.count),"#
            + #""prompt_eval_duration":0,"eval_count":\#(total),"eval_duration":\#(elapsed)}"#
    }

    /// Writes one line of the stream.
    private func line(_ message: String, done: String, to writer: inout ChunkWriter) {
        writer.begin()
        writer.write(base)
        writer.buffer.writeString(message)
        writer.buffer.writeString(done)
        writer.write("\n")
        writer.end()
    }
}
