import Contract
import JSONCodec
import TestSupport
import Testing

/// The estimate of tokens without a tokenizer, compared with real tokenizers.
@Suite struct TokenEstimatorTests {
    private static func tokens(_ pieces: some Sequence<String>) -> Int {
        var counter = TokenEstimator()
        for piece in pieces { counter.add(piece) }
        return counter.tokens
    }

    @Test func `ordinary text in ten languages, code and numbers is within 15 percent of the tokenizer`() {
        #expect(TokenCount.all.count == 24)
        for sample in TokenCount.all {
            let (real, estimate) = (sample.tokens["o200k_base"] ?? 0, Self.tokens([sample.text]))
            #expect(abs(estimate - real) * 100 <= real * 15, "\(sample.name): \(estimate), by the tokenizer \(real)")
            // For these the tokenizers differ from each other by a factor of two to three.
            guard !sample.name.hasPrefix("hindi"), !sample.name.hasPrefix("numbers") else { continue }
            for (tokenizer, count) in sample.tokens {
                #expect(abs(estimate - count) * 100 <= count * 30, "\(sample.name): \(estimate), by \(tokenizer) \(count)")
            }
        }
    }

    @Test func `the estimate does not depend on how the text is cut`() {
        for sample in TokenCount.all {
            #expect(Self.tokens(sample.text.map { String($0) }) == Self.tokens([sample.text]), "\(sample.name)")
        }
    }

    @Test func `a word of the simulator is a token`() {
        #expect(Self.tokens((0..<120_000).map { " w\($0)" }) == 120_000)
        #expect(Self.tokens([(0..<500).map { " w\($0)" }.joined()]) == 500)
    }

    @Test func `words are a lower bound`() {
        var counter = TokenEstimator()
        for piece in ["Don't ", "stop", "ping at iPhone", " 12, привет", " مرحبا", "日本"] { counter.add(piece) }
        // Don't, stopping, at, iPhone, привет, مرحبا
        #expect(counter.words == 6)
        #expect(counter.tokens >= counter.words)
    }

    @Test func `any bytes of a text are counted`() {
        var counter = TokenEstimator()
        #expect(counter.tokens == 0)
        counter.add("\0\u{7f}\r\n")
        #expect(counter.sixteenths == 0 && counter.tokens == 0)
        counter.add("\u{10FFFF}👍")
        #expect(counter.tokens == 4)
    }

    @Test func `a prompt counts its messages, their texts and the tools`() throws {
        let body =
            #"{"messages":[{"role":"user","content":"one two"},{"role":"user","content":[{"type":"text","text":"three"},{"type":"image_url"}]}],"#
            + #""tools":[{"a":1}]}"#
        let request = try #require(try JSON(parsing: body).object)
        // Two frames, three words, and [{"a":1}].
        #expect(TokenEstimate.prompt(request) == 8 + 3 + 6)
    }
}
