import Contract
import JSONCodec
import NIOCore
import NIOHTTP1

/// DashScope's speech synthesis (Qwen-TTS): base64 samples in server-sent events. Every second event has two `data:` lines, which readers
/// must join (WHATWG HTML, section 9.2.6).
enum DashScopeSpeechDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        var ask = Ask(model: try ChatMessages.model(in: body), stream: DashScopeFrames.areAsked(by: headers))
        if let messages = body["input"]?["messages"]?.array { return try hearing(ask, messages) }
        guard let text = body["input"]?["text"]?.string, !text.isEmpty else { throw Refusal(400, "input.text is missing") }
        guard body["input"]?["voice"]?.string != nil else { throw Refusal(400, "input.voice is missing") }
        ask.tag = body["user"]?.string
        ask.question = text
        return ask
    }

    /// A request of Qwen-ASR, which has the same path.
    private static func hearing(_ ask: Ask, _ messages: [JSON]) throws(Refusal) -> Ask {
        let content = messages.last { $0["role"]?.string == "user" }?["content"]?.array ?? []
        guard let url = content.compactMap({ $0["audio"]?.string }).first, let transcript = SimulatedHearing.transcript(ofURL: url) else {
            throw Refusal(400, "the audio is missing or not base64")
        }
        var ask = ask
        ask.stream = false
        ask.transcript = transcript
        return ask
    }

    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) {
        ask.transcript != nil ? SimulatedDocument.plan(script) : SimulatedVoice.plan(ask, script: script, bare: false)
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        guard let transcript = ask.transcript else { return DashScopeSpeechForm(number: number) }
        let document: JSON = [
            "output": [
                "choices": [["finish_reason": "stop", "message": ["role": "assistant", "content": [["text": .string(transcript)]]]]]
            ], "usage": ["output_tokens_details": ["text_tokens": 1]], "request_id": .string(DashScopeFrames.requestID(number)),
        ]
        return DocumentForm(document.bytes)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        DashScopeFrames.error(status: status, message: message, number: number)
    }
}

/// Speech in DashScope's frames.
private final class DashScopeSpeechForm: AnswerForm {
    private let number: Int
    private var frames = 0

    init(number: Int) { self.number = number }

    var streamType: String { DashScopeFrames.type }

    func start(_ writer: inout ChunkWriter) {}

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        frame(SimulatedVoice.base64(total - 1), finishReason: "null", total: total, to: &writer)
    }

    func end(total: Int, to writer: inout ChunkWriter) { frame([], finishReason: "stop", total: total, to: &writer) }

    func errorFrame(to writer: inout ChunkWriter) { DashScopeFrames.writeError(id: frames + 1, number: number, to: &writer) }

    /// Writes one frame with base64 samples; every second frame is split into two `data:` lines.
    private func frame(_ data: [UInt8], finishReason: StaticString, total: Int, to writer: inout ChunkWriter) {
        frames += 1
        writer.begin()
        DashScopeFrames.writeHead(id: frames, to: &writer)
        writer.write(#"{"output":{"audio":{"data":""#)
        writer.write(data)
        writer.buffer.writeString(#"","expires_at":0,"id":"audio_\#(number)","url":""},"#)
        if frames % 2 == 0 { writer.write("\ndata:") }
        writer.write(#""finish_reason":""#)
        writer.write(finishReason)
        writer.buffer.writeString(#""},"usage":\#(usage(total)),"request_id":"\#(DashScopeFrames.requestID(number))"}"#)
        writer.write("\n\n")
        writer.end()
    }

    func whole(total: Int, complete: Bool) -> [UInt8] {
        let samples = SimulatedVoice.base64(of: (0..<total).flatMap(SimulatedVoice.piece))
        var out = Array(#"{"output":{"audio":{"data":""#.utf8) + samples
        out += Array(#"","expires_at":0,"id":"audio_\#(number)","url":""},"finish_reason":"\#(complete ? "stop" : "null")"},"#.utf8)
        return out + Array(#""usage":\#(usage(total)),"request_id":"\#(DashScopeFrames.requestID(number))"}"#.utf8)
    }

    var wholeError: [UInt8] {
        DashScopeFrames.error(status: 429, message: "Allocated quota exceeded, please increase your quota limit.", number: number)
    }

    private func usage(_ total: Int) -> String {
        #"{"total_tokens":\#(PromptTokens.count + total),"input_tokens":\#(PromptTokens.count),"output_tokens":\#(total)}"#
    }
}
