import Testing

@testable import Simulator

@Suite struct ModelScriptTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var model: String
        var script: ModelScript?
        var testDescription: String { model }

        init(_ model: String, _ change: (inout ModelScript) -> Void) {
            var script = ModelScript()
            change(&script)
            self.model = model
            self.script = script
        }
        init(notScripted model: String) { self.model = model }
    }

    @Test(arguments: [
        Case("sim") { _ in },
        Case("sim-n5-g10") {
            $0.tokens = 5; $0.gap = 10_000_000
        },
        Case("sim-g0.5") { $0.gap = 500_000 },
        Case("sim-g0-n0") {
            $0.gap = 0; $0.tokens = 0
        },
        Case("sim-n3-f250") {
            $0.tokens = 3; $0.firstDelay = 250_000_000
        },
        Case("sim-e503") { $0.errorStatus = 503 },
        Case("sim-e200-e600") { _ in },
        Case("sim-k2-h3-b4") {
            $0.dropAfter = 2; $0.silentAfter = 3; $0.burst = 4
        },
        Case("sim-b0") { $0.burst = 1 },
        Case("sim-x") { $0.errorFrame = true },
        Case("sim-d") { $0.truncated = true },
        Case("sim-t") { $0.toolCall = true },
        Case("sim-r") { $0.reasoning = true },
        Case("sim-l") { $0.tokenLimit = true },
        Case("sim-o") { $0.staysOpen = true },
        Case("sim-z") { $0.outlivesClient = true },
        Case("sim-n7-u123-qwen-") { $0.tokens = 7 },
        Case("sim-nx-g-f1.2.3-n-k1.5") { _ in },
        Case("sim-n99999999999999999999-g999999999") {
            $0.tokens = 10_000_000; $0.gap = 600_000_000_000
        },
        Case("sim-n1-n2") { $0.tokens = 2 },
        Case(notScripted: "qwen-plus"),
        Case(notScripted: "simulator"),
        Case(notScripted: "simn5"),
        Case(notScripted: ""),
    ]) func `model names are parsed`(_ example: Case) { #expect(ModelScript(model: example.model) == example.script) }

    @Test(
        arguments: [
            ("", nil), (" w0", 1), (" w0 w1 w41", 42), (" w7 and so on", 8), ("7", nil), ("hello", nil), (" w", nil), (" w12 x3", nil),
        ] as [(String, Int?)]) func `the prefix determines the next token`(prefix: String, next: Int?)
    { #expect(Answer.tokenAfter(prefix) == next) }

    @Test func `the schedule is absolute`() {
        var script = ModelScript()
        script.tokens = 6
        script.gap = 10
        script.firstDelay = 100
        script.burst = 2
        var pace = AnswerPace(script: script, start: 1000, count: 6, streamed: true)
        #expect(pace.take(at: 1099) == nil)
        #expect(pace.due == 1100)
        #expect(pace.take(at: 1100) == 0)
        #expect(pace.take(at: 1100) == 1)
        #expect(pace.take(at: 1100) == nil)
        #expect(pace.due == 1110)
        // If late, it catches up at once.
        #expect(pace.take(at: 5000) == 2)
        #expect([pace.take(at: 5000), pace.take(at: 5000), pace.take(at: 5000), pace.take(at: 5000)] == [3, 4, 5, nil])
        #expect(pace.hasEnded(at: 5000))
    }

    @Test(
        arguments: [
            ("sim-n5-k2", 2, .drop), ("sim-n5-k5", 5, .drop), ("sim-n5-k6", 5, .complete), ("sim-n5-h2", 2, .silence),
            ("sim-n5-h5", 5, .complete), ("sim-n5-k2-h1", 1, .silence), ("sim-n5-k1-h2", 1, .drop), ("sim-n5-x", 5, .errorFrame),
            ("sim-n5-d", 5, .truncated), ("sim-n0", 0, .complete),
        ] as [(String, Int, AnswerPace.Ending)]) func `the end of an answer`(model: String, limit: Int, ending: AnswerPace.Ending) throws
    {
        let script = try #require(ModelScript(model: model))
        let pace = AnswerPace(script: script, start: 0, count: script.tokens, streamed: true)
        #expect(pace.limit == limit)
        #expect(pace.ending == ending)
    }

    @Test(arguments: ["why is the sky blue?", "天空为什么是蓝色的？", ""]) func `a paragraph takes ten to twenty seconds`(question: String) {
        let pieces = ReadableParagraph(about: question).pieces
        let seconds = Double(pieces.count) * Double(ReadableParagraph.script.gap) / 1e9
        #expect((10...20).contains(seconds))
        #expect(pieces == ReadableParagraph(about: question).pieces)
        let text = pieces.joined()
        #expect(question.isEmpty || text.contains(question))
        // Continued from a prefix, it is the same text.
        let prefix = pieces.prefix(40).joined()
        let rest = Answer(readable: pieces, prefix: prefix)
        #expect(prefix + rest.said(upTo: rest.count).text == text)
        #expect(Answer(readable: pieces, prefix: "something else").count == pieces.count)
    }
}
