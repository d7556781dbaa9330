import Contract
import JSONCodec
import Testing

@testable import Worker

/// The request to the model after recognition and retrieval.
@Suite struct PreparationTests {
    private static func body(_ text: String, transcript: String?, documents: String) throws -> String {
        let request = try #require(try JSON(parsing: text).object)
        return JSON.object(Preparation.body(request, transcript: transcript, documents: documents)).text
    }

    @Test func `the last user message is completed`() throws {
        let voice = #"{"messages":[{"role":"user","content":"old"},{"role":"assistant","content":"a"},{"role":"user","content":""}]}"#
        #expect(
            try Self.body(voice, transcript: "hello", documents: "D\n\n")
                == #"{"messages":[{"role":"user","content":"old"},{"role":"assistant","content":"a"},{"role":"user","content":"D\n\nhello"}]}"#
        )
        let text = #"{"messages":[{"role":"user","content":"why?"}]}"#
        #expect(try Self.body(text, transcript: nil, documents: "D\n\n") == #"{"messages":[{"role":"user","content":"D\n\nwhy?"}]}"#)
        #expect(try Self.body(text, transcript: nil, documents: "") == text)
        let parts = #"{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#
        #expect(
            try Self.body(parts, transcript: nil, documents: "D")
                == #"{"messages":[{"role":"user","content":[{"type":"text","text":"D"},{"type":"text","text":"x"}]}]}"#)
        #expect(try Self.body(#"{"messages":[]}"#, transcript: "x", documents: "") == #"{"messages":[]}"#)
    }

    @Test func `phases before the request to the model`() {
        var machine = GenerationMachine(
            policy: GenerationMachine.Policy(retries: 1, backoff: .zero ... .zero, upstreams: 1, promptEstimate: 1), earlier: nil)
        machine.preparing(.recognizing)
        #expect(machine.phase == .recognizing && machine.checked() == nil)
        machine.preparing(.retrieving)
        #expect(machine.phase == .retrieving)
        machine.prepared()
        #expect(machine.phase == .retrieving, "the interrupt key is read before the request")
        #expect(machine.checked() == .dial(0) && machine.phase == .connecting)
        machine.preparing(.recognizing)
        #expect(machine.phase == .connecting)
        var silent = machine
        #expect(silent.noSpeech() == .end(.finished(.noSpeech, .none)))
    }
}
