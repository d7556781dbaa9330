import Contract
import JSONCodec
import Testing

@testable import Gateway

@Suite struct RealtimeInputTests {
    /// Audio of the client: a tone or silence, as bytes.
    static func audio(milliseconds: Int, amplitude: Double) -> [UInt8] {
        (0..<milliseconds * 24).flatMap { index -> [UInt8] in
            let phase = index % 80
            let sample = Int16(amplitude * (phase < 40 ? 1 : -1))
            return [UInt8(truncatingIfNeeded: sample), UInt8(truncatingIfNeeded: sample >> 8)]
        }
    }

    private func feed(_ input: inout RealtimeInput, _ audio: [UInt8], in pieces: Int) -> [(RealtimeInput.Change, Int)] {
        var changes: [(RealtimeInput.Change, Int)] = []
        for start in stride(from: 0, to: audio.count, by: pieces) {
            _ = input.append(Array(audio[start..<min(start + pieces, audio.count)])) { input, change in
                if case .speechStopped = change { changes.append((change, input.take().count / 32)) } else { changes.append((change, 0)) }
            }
        }
        return changes
    }

    @Test(arguments: [101, 4_800, 1 << 20]) func `utterances are found, whatever the pieces`(size: Int) throws {
        var input = RealtimeInput(maximum: 1 << 20)
        input.detect(.init())
        let speech = Self.audio(milliseconds: 600, amplitude: 6_000)
        let silence = Self.audio(milliseconds: 1_000, amplitude: 0)
        let changes = feed(&input, silence + speech + silence + speech + silence, in: size)
        try #require(changes.count == 4)
        guard case .speechStarted(let start) = changes[0].0, case .speechStopped(let stop) = changes[1].0,
            case .speechStarted(let second) = changes[2].0
        else { throw ExpectedChange() }
        #expect(abs(start - 700) <= 20, "the padding is included")
        #expect(abs(stop - 2_100) <= 20)
        #expect(abs(changes[1].1 - 1_400) <= 40, "padding, speech and the silence that ended it")
        #expect(abs(second - 2_300) <= 20)
    }

    private struct ExpectedChange: Error {}

    @Test func `quiet and short noises are not speech`() {
        var input = RealtimeInput(maximum: 1 << 20)
        input.detect(.init())
        let audio =
            Self.audio(milliseconds: 2_000, amplitude: 200) + Self.audio(milliseconds: 30, amplitude: 20_000)
            + Self.audio(milliseconds: 60_000, amplitude: 0)
        #expect(feed(&input, audio, in: 4_800).isEmpty)
        #expect(input.milliseconds < 2_000, "silence is not kept")
    }

    @Test func `an utterance is cut at the maximum of the buffer`() {
        var input = RealtimeInput(maximum: 32_000)
        input.detect(.init())
        let changes = feed(&input, Self.audio(milliseconds: 3_000, amplitude: 6_000), in: 4_800)
        #expect(changes.count(where: { if case .speechStopped = $0.0 { true } else { false } }) == 2)
    }

    @Test func `without turn detection the buffer has a maximum`() {
        var input = RealtimeInput(maximum: 32_000)
        #expect(input.append(Self.audio(milliseconds: 900, amplitude: 100)) { _, _ in })
        #expect(!input.append(Self.audio(milliseconds: 200, amplitude: 100)) { _, _ in })
        #expect(abs(input.milliseconds - 900) <= 5)
        input.clear()
        #expect(input.milliseconds == 0)
    }
}

@Suite struct RealtimeConfigurationTests {
    @Test func `the current and the beta form mean the same`() throws {
        var current = RealtimeConfiguration(model: "m", detectsTurns: true)
        var beta = current
        try current.apply(
            [
                "type": "realtime", "instructions": "Be kind.", "output_modalities": ["text"], "max_output_tokens": 50, "tracing": "auto",
                "audio": [
                    "input": [
                        "format": ["type": "audio/pcm", "rate": 24000], "transcription": ["model": "whisper-1", "language": "en"],
                        "turn_detection": ["type": "server_vad", "threshold": .number("0.3"), "interrupt_response": false],
                    ],
                    "output": ["voice": "alloy"],
                ],
            ])
        try beta.apply(
            [
                "instructions": "Be kind.", "modalities": ["text"], "max_response_output_tokens": 50, "voice": "alloy",
                "input_audio_format": "pcm16", "output_audio_format": "pcm16",
                "input_audio_transcription": ["model": "whisper-1", "language": "en"],
                "turn_detection": ["type": "server_vad", "threshold": .number("0.3"), "interrupt_response": false],
            ])
        #expect(current == beta)
        #expect(current.turnDetection?.interruptsResponse == false && current.language == "en" && current.modality == .text)
        try current.apply(["audio": ["input": ["turn_detection": .null]]])
        #expect(current.turnDetection == nil)
    }

    @Test(arguments: [
        #"{"type":"transcription"}"#: "session.type", #"{"model":"other"}"#: "session.model", #"{"prompt":{"id":"p"}}"#: "session.prompt",
        #"{"audio":{"input":{"format":{"type":"audio/pcmu"}}}}"#: "session.audio.input.format.type",
        #"{"audio":{"input":{"noise_reduction":{"type":"near_field"}}}}"#: "session.audio.input.noise_reduction",
        #"{"audio":{"input":{"turn_detection":{"type":"semantic_vad"}}}}"#: "session.audio.input.turn_detection.type",
        #"{"audio":{"output":{"speed":1.5}}}"#: "session.audio.output.speed", #"{"truncation":"disabled"}"#: "session.truncation",
        #"{"tools":[{"type":"mcp"}]}"#: "session.tools[0].type", #"{"surprise":1}"#: "session.surprise",
        #"{"output_modalities":["smell"]}"#: "session.output_modalities", #"{"include":["x"]}"#: "session.include",
    ]) func `what is not supported is refused by name`(body: String, field: String) throws {
        var configuration = RealtimeConfiguration(model: "m", detectsTurns: true)
        let before = configuration
        let error = try #require(throws: HTTPErrorResponse.self) { try configuration.apply(try JSON(parsing: body)) }
        #expect(error.message.contains("\"\(field)\""), "\(error.message)")
        #expect(configuration == before)
    }
}
