import Contract
import JSONCodec
import Testing
import Upstream

@testable import Worker

struct ContinuationTests {
    private static func stop(_ kind: UpstreamConfiguration.Kind = .openai, prefix: UpstreamConfiguration.Prefix = .partial)
        -> UpstreamRoute.Candidate
    {
        var upstream = UpstreamConfiguration(name: "u", kind: kind, url: "http://h", key: nil)
        upstream.prefix = prefix
        return UpstreamRoute.Candidate(upstream: upstream, model: "m")
    }

    private static func make(
        _ events: [GenerationEvent], onCrash: Job.OnCrash = .continue, prefix: UpstreamConfiguration.Prefix = .partial
    ) -> Continuation? {
        var job = Job(id: JobID("p0-j")!, priority: .standard, request: JSONObject())
        job.onCrash = onCrash
        let logged = events.enumerated().map { LoggedEvent(id: EventID(attempt: 1, sequence: $0.offset), event: $0.element) }
        return Continuation(logged, job: job, route: [stop(prefix: prefix)])
    }

    private static func audio(_ index: Int, at offset: Int?, last: Bool = false, finish: FinishReason? = nil) -> GenerationEvent {
        .audio(Audio(index: index, format: "pcm", data: "", last: last, textOffset: offset, textFinish: finish))
    }

    @Test func `a text is continued if the upstream supports it`() {
        #expect(Self.make([.text("a"), .text("b")])?.text == "ab")
        #expect(Self.make([.text("a"), .restarted, .text("b")])?.text == "b")
        for nothing in [Self.make([]), Self.make([.text("a"), .restarted]), Self.make([.text("a")], prefix: .none)] {
            #expect(nothing == nil)
        }
        #expect(Self.make([.text("a")], onCrash: .restart) == nil)
        let call = GenerationEvent.toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: "{}"))
        #expect(Self.make([.text("a"), call]) == nil)
        #expect(Self.make([.text("a"), call, .restarted, .text("b")])?.text == "b")
    }

    @Test func `audio events tell the speech position and the finish reason`() throws {
        let half = try #require(Self.make([.text("One. Two."), Self.audio(0, at: 0), Self.audio(1, at: 4)]))
        #expect(half.nextAudio == 2 && half.lastSpoken == 4 && half.finish == nil && !half.isVoiceClosed)
        let whole = try #require(Self.make([.text("One."), Self.audio(0, at: 0, finish: .length)], prefix: .none))
        #expect(whole.finish == .length)
        let closed = try #require(Self.make([.text("One."), Self.audio(0, at: 0), Self.audio(1, at: nil, last: true)]))
        #expect(closed.isVoiceClosed && closed.lastSpoken == 0)
        // Events of older workers have no offset: all text before them counts as spoken.
        #expect(Self.make([.text("One. "), Self.audio(0, at: nil), .text("Two")])?.lastSpoken == 5)
        let anew = try #require(Self.make([.text("One."), Self.audio(0, at: 0), .restarted, .text("x")]))
        #expect(anew.nextAudio == 0 && anew.lastSpoken == nil)
    }

    @Test(arguments: [
        ("Hello", "Hello", [" world"], " world"), ("Hello \n", "Hello", [" ", "\nworld"], "world"),
        ("Hello \n", "Hello", ["world"], "world"),
        ("Hello  ", "Hello", [" world"], "world"), ("Hello ", "Hello", ["  world"], " world"), (" \n", "", [" \n", "a"], "a"),
        ("你好　", "你好", ["　", "世界"], "世界"),
    ]) func `withheld white space is not repeated`(text: String, shown: String, pieces: [String], fresh: String) throws {
        var continuation = try #require(Self.make([.text(text)]))
        #expect(continuation.prefix(for: .anthropic) == shown)
        #expect(pieces.map { continuation.withoutRepeatedSpace($0) }.joined() == fresh)
        // For other kinds of upstream neither the text nor the answer is changed.
        #expect(continuation.prefix(for: .openai) == text)
        #expect(pieces.map { continuation.withoutRepeatedSpace($0) } == pieces)
    }
}

struct SpeechGateTests {
    @Test func `tickets beyond the limit wait in order`() {
        var admitted: [Int] = []
        let gate = SpeechGate(limit: 2)
        let tickets = (0..<5).map { number in SpeechGate.Ticket { admitted.append(number) } }
        #expect(tickets.map { gate.enter($0) } == [true, true, false, false, false])
        // An abandoned ticket is skipped.
        gate.leave(tickets[2])
        gate.leave(tickets[0])
        #expect(admitted == [3])
        gate.leave(tickets[0])
        #expect(admitted == [3], "leaving twice has no effect")
        gate.leave(tickets[3])
        gate.leave(tickets[1])
        #expect(admitted == [3, 4])
        gate.leave(tickets[4])
        #expect(gate.enter(SpeechGate.Ticket {}) && gate.enter(SpeechGate.Ticket {}) && !gate.enter(SpeechGate.Ticket {}))
    }
}
