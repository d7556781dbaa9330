import Contract
import JSONCodec
import NIOHTTP1

/// OpenAI's speech API: raw samples or a WAV file of unknown length, in paced chunks; each piece counts as a token.
enum OpenAISpeechDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        var ask = Ask(model: try ChatMessages.model(in: body), stream: true)
        guard let input = body["input"]?.string, !input.isEmpty else { throw Refusal(400, "input is missing") }
        guard body["voice"]?.string != nil else { throw Refusal(400, "voice is missing") }
        switch body["response_format"]?.string ?? "mp3" {
        case "pcm": break
        case "wav": ask.waveHeader = true
        case let other: throw Refusal(400, "response_format \"\(other.prefix(40))\" is not supported; use pcm or wav")
        }
        ask.tag = body["user"]?.string
        ask.question = input
        return ask
    }

    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) {
        SimulatedVoice.plan(ask, script: script, bare: true)
    }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm { SampleForm(hasHeader: ask.waveHeader) }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        OpenAIDialect.error(status: status, message: message, number: number)
    }
}

/// Speech as raw samples, optionally after a WAV header.
private final class SampleForm: AnswerForm {
    private let hasHeader: Bool

    init(hasHeader: Bool) { self.hasHeader = hasHeader }

    var streamType: String { hasHeader ? "audio/wav" : "audio/pcm" }

    func start(_ writer: inout ChunkWriter) {
        guard hasHeader else { return }
        writer.begin()
        writer.write(SimulatedVoice.waveHeader)
        writer.end()
    }

    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {
        writer.begin()
        writer.write(SimulatedVoice.piece(total - 1))
        writer.end()
    }

    /// Raw samples have no end mark and no error frames: the end of the body ends the audio.
    func end(total: Int, to writer: inout ChunkWriter) {}
    func errorFrame(to writer: inout ChunkWriter) {}
    func whole(total: Int, complete: Bool) -> [UInt8] { (0..<total).flatMap(SimulatedVoice.piece) }
    var wholeError: [UInt8] { [] }
}
