import TestSupport
import Testing

@testable import Worker

@Suite(.serialized, .cpuBound)
struct SentenceCutterTests {
    private static func cut(_ text: String, slices: [Int] = []) -> [String] {
        var cutter = SentenceCutter()
        var pieces: [String] = []
        var rest = Array(text)[...]
        for length in slices {
            pieces += cutter.feed(String(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
        pieces += cutter.feed(String(rest))
        return pieces + cutter.finish()
    }

    private static let table: [(String, [String])] = [
        ("Hello there. How are you? Fine!", ["Hello there.", " How are you?", " Fine!"]),
        ("你好。今天天气怎么样？很好！", ["你好。", "今天天气怎么样？", "很好！"]),
        ("one line\nanother", ["one line\n", "another"]),
        // Numbers.
        ("Pi is 3.14159 or so. Right.", ["Pi is 3.14159 or so.", " Right."]),
        ("圆周率是3.14。对。", ["圆周率是3.14。", "对。"]),
        ("It costs about 1,234,567 yuan, they say", ["It costs about 1,234,567 yuan,", " they say"]),
        ("1. First thing. 2. Second thing.", ["1. First thing.", " 2. Second thing."]),
        // Abbreviations and initials.
        ("Dr. Smith met Mr. J. Doe. They spoke.", ["Dr. Smith met Mr. J. Doe.", " They spoke."]),
        ("Use tools, e.g. a saw, i.e. something sharp.", ["Use tools, e.g. a saw,", " i.e. something sharp."]),
        ("The U.S. is large. So am I. Yes.", ["The U.S. is large.", " So am I.", " Yes."]),
        // Links and file names.
        ("See https://example.com/a,b;c?q=1&r=2. Then go on.", ["See https://example.com/a,b;c?q=1&r=2.", " Then go on."]),
        ("请看 https://example.com/a?b=1。谢谢", ["请看 https://example.com/a?b=1。", "谢谢"]),
        ("Open main.swift in www.example.com/x?y now! Go.", ["Open main.swift in www.example.com/x?y now!", " Go."]),
        // Ellipses.
        ("Well... I see. Ok.", ["Well...", " I see.", " Ok."]),
        // Weak marks split from fifteen characters on.
        ("Well, yes, indeed, this is so", ["Well, yes, indeed,", " this is so"]),
        ("好，我们今天先去北京然后再去上海，最后回家", ["好，我们今天先去北京然后再去上海，", "最后回家"]),
        // The first clause may be shorter, so that speech starts early.
        ("Certainly not, because it rains, it pours.", ["Certainly not,", " because it rains,", " it pours."]),
        ("今天天气很好，我们去公园。", ["今天天气很好，", "我们去公园。"]), ("今天很好，我们去公园吧。", ["今天很好，我们去公园吧。"]),
        ("He said \"Go.\" Then he went.", ["He said \"Go.", "\" Then he went."]),
        ("", []),
    ]

    @Test(arguments: table)
    func `splits at sentence ends`(text: String, pieces: [String]) {
        #expect(Self.cut(text) == pieces)
    }

    @Test(arguments: table)
    func `the result does not depend on chunking`(text: String, pieces: [String]) {
        #expect(Self.cut(text, slices: Array(repeating: 1, count: text.count)) == pieces)
        for first in 0...text.count { #expect(Self.cut(text, slices: [first]) == pieces, "cut at \(first)") }
    }

    @Test func `strong marks end a sentence at once`() {
        var cutter = SentenceCutter()
        #expect(cutter.feed("你好。") == ["你好。"])
        #expect(cutter.feed("Really?") == ["Really?"])
        #expect(cutter.feed("Yes") == [] && cutter.feed("!") == ["Yes!"])
        #expect(cutter.feed("A line\n") == ["A line\n"])
        // Could still be a number.
        #expect(cutter.feed("It is 3.") == [])
        #expect(cutter.feed(" Ok") == ["It is 3."])
    }

    @Test func `a text without marks is split at 60 characters`() {
        let words = (0..<40).map { "w\($0)" }.joined(separator: " ")
        let pieces = Self.cut(words)
        #expect(pieces.joined() == words)
        #expect(pieces.allSatisfy { $0.count <= 60 } && pieces.dropLast().allSatisfy { $0.count > 50 && $0.hasSuffix(" ") }, "\(pieces)")
        let chinese = String(repeating: "字", count: 150)
        #expect(Self.cut(chinese).map(\.count) == [60, 60, 30])
        // An ASCII word among them is not split.
        let mixed = String(repeating: "字", count: 57) + "Swift" + String(repeating: "字", count: 10)
        #expect(Self.cut(mixed).first == String(repeating: "字", count: 57))
        // Neither is a link, although it is longer.
        let link = "https://example.com/" + String(repeating: "a", count: 100)
        #expect(Self.cut("see " + link + " there") == ["see ", link, " there"])
        let endless = String(repeating: "x", count: 1_000)
        let chunks = Self.cut(endless)
        #expect(chunks.joined() == endless && chunks.allSatisfy { $0.count <= SentenceCutter.wordLimit })
    }

    @Test func `the concatenated pieces equal the text`() {
        let alphabet = Array("ab1 .,;!?，。；、！？\n\"(字:/w")
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            let text = String((0..<Int.random(in: 0...200, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? "a" })
            let whole = Self.cut(text)
            #expect(whole.joined() == text)
            #expect(Self.cut(text, slices: Array(repeating: 1, count: text.count)) == whole, "\(text)")
        }
    }

    /// Each character is examined a few times at most, whatever the text.
    @Test(arguments: [
        "Go. ", "a", "。", "www.!", "www.?,;", "!", "1.) ", "a.a.a.\" ", "x.\"", "   ", "... ", "字", "字a", "no. ", ", ", "a://b?c", "\n",
        "\r\n",
        "1", "12345,", ".字", "字字字字字字字字字字字字字字字字www.a!",
    ]) func `the work is proportional to the text`(_ pattern: String) {
        let text = String(repeating: pattern, count: 20_000 / pattern.count)
        var whole = SentenceCutter()
        let pieces = whole.feed(text) + whole.finish()
        #expect(whole.steps <= 8 * text.count, "\(whole.steps) steps")
        #expect(!pieces.isEmpty)
        // A piece that waits for its next character is not examined from its beginning again.
        var sliced = SentenceCutter()
        for character in text.prefix(5_000) { _ = sliced.feed(String(character)) }
        #expect(sliced.steps <= 8 * 5_000, "\(sliced.steps) steps")
    }

    @Test func `pieces without letters or digits are not spoken`() {
        #expect(SentenceCutter.spoken(" Hello. ") == "Hello.")
        #expect(SentenceCutter.spoken("---\n") == nil && SentenceCutter.spoken("  ") == nil && SentenceCutter.spoken("\"") == nil)
    }
}
