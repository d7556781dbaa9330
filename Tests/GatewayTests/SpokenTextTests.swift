import Contract
import JSONCodec
import Support
import Testing

@testable import Gateway

/// How much of an answer the user has heard.
@Suite struct SpokenTextTests {
    private static func audio(_ milliseconds: Int, _ start: Int, _ end: Int, last: Bool = false) -> Audio {
        let data = Base64.encode(Array(repeating: UInt8(1), count: milliseconds * Audio.sampleRate / 1_000 * 2))
        return Audio(index: 0, format: "pcm", data: data, last: last, textOffset: start, textEnd: end)
    }

    private static func heard(_ spoken: SpokenText, _ answer: String, _ milliseconds: Int) -> String {
        String(decoding: answer.utf8.prefix(spoken.heard(of: answer, milliseconds: milliseconds)), as: UTF8.self)
    }

    @Test func `the answer is cut at the end of a word`() {
        let answer = "One two three four. Five six seven eight. 🙂"
        var spoken = SpokenText()
        // Two events of the first sentence.
        spoken.receive(Self.audio(1_000, 0, 20))
        spoken.receive(Self.audio(1_000, 0, 20))
        spoken.receive(Self.audio(2_000, 20, 42))
        spoken.receive(Audio(index: 3, format: "pcm", data: "", last: true))
        let table: [(Int, String)] = [
            (0, ""), (-5, ""), (100, ""), (350, "One"), (1_000, "One two"), (1_950, "One two three four."),
            (2_000, "One two three four. "), (3_100, "One two three four. Five six"), (3_999, answer), (9_999, answer),
        ]
        for (milliseconds, text) in table { #expect(Self.heard(spoken, answer, milliseconds) == text, "\(milliseconds)") }
        #expect(SpokenText(stored: spoken.json) == spoken)
    }

    @Test func `Chinese is cut at a character`() {
        let answer = "今天天气很好。明天也是。"
        var spoken = SpokenText()
        spoken.receive(Self.audio(1_400, 0, 21))
        spoken.receive(Self.audio(1_000, 21, 36, last: true))
        #expect(Self.heard(spoken, answer, 810) == "今天天气")
        #expect(Self.heard(spoken, answer, 1_610) == "今天天气很好。明")
        #expect(Self.heard(spoken, answer, 2_400) == answer)
    }

    @Test func `audio that was interrupted counts as far as it went`() {
        let answer = "A sentence whose synthesis was interrupted early."
        var spoken = SpokenText()
        spoken.receive(Self.audio(500, 0, answer.utf8.count))
        let heard = Self.heard(spoken, answer, 500)
        #expect(answer.hasPrefix(heard) && !heard.isEmpty && heard.utf8.count < 15, "half a second is not the whole sentence: \(heard)")
        #expect(SpokenText().heard(of: answer, milliseconds: 100) == 0, "nothing was spoken")
    }

    @Test func `the history holds what was heard, and may be corrected`() throws {
        var turn = ChatHistory.Turn(user: "q", text: "One two three four. Five six seven eight.")
        turn.requestID = "r"
        turn.spoken.receive(Self.audio(2_000, 0, 20))
        turn.spoken.receive(Self.audio(2_000, 20, 41, last: true))
        var history = ChatHistory(maximumTurns: 3, maximumSize: 10_000)
        history.append(turn)
        let found = history.played("r", milliseconds: 1_000)
        #expect(found && history.messages.last == ["role": "assistant", "content": "One two"])
        var restored = ChatHistory(stored: history.json, maximumTurns: 3, maximumSize: 10_000)
        #expect(restored == history)
        _ = restored.played("r", milliseconds: 3_100)
        #expect(restored.turns[0].answer == "One two three four. Five six")
        _ = restored.played("r", milliseconds: 0)
        #expect(restored.messages == [["role": "user", "content": "q"]])
        _ = restored.played("r", milliseconds: 4_000)
        #expect(restored.turns[0].answer == turn.text)
        let unknown = restored.played("x", milliseconds: 0)
        #expect(!unknown)
    }
}
