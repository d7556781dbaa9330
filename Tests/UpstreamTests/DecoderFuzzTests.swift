import Contract
import JSONCodec
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// All decoders with almost valid responses: no trap, bounded output, and the same result in any pieces. See `Fuzz` for the settings; the
/// number of inputs applies to each dialect.
@Suite(.serialized, .cpuBound)
struct DecoderFuzzTests {
    /// The result of one response.
    fileprivate struct Outcome: Equatable {
        var text = ""
        var reasoning = ""
        var others: [UpstreamOutput] = []
        var samples: [UInt8] = []
        var failure: Failure?
        var isComplete = false
    }

    private static func head(_ dialect: FuzzGrammar.Dialect) -> HTTPResponseHead {
        var head = HTTPResponseHead()
        head.status = 200
        head.contentType = dialect.contentType
        return head
    }

    private static func read(_ dialect: FuzzGrammar.Dialect, _ pieces: [ArraySlice<UInt8>]) -> Outcome {
        var outcome = Outcome()
        do throws(Failure) {
            switch dialect {
            case .samples, .speech:
                let kind = dialect == .samples ? SpeechConfiguration.Kind.openai : .dashscope
                let decoder = try kind.decoder(for: head(dialect))
                defer { outcome.isComplete = decoder.isComplete }
                for piece in pieces {
                    try decoder.receive(piece.span, into: &outcome.samples)
                }
                try decoder.finish(into: &outcome.samples)
            default:
                let kind = UpstreamConfiguration.Kind(rawValue: dialect.rawValue) ?? .openai
                let decoder = try UpstreamConfiguration.at("http://x", kind: kind).adapter.decoder(for: head(dialect))
                var batch = OutputBatch()
                defer {
                    for output in batch.outputs { outcome.add(output) }
                    outcome.isComplete = decoder.isComplete
                }
                for piece in pieces {
                    try decoder.receive(piece.span, into: &batch)
                }
                try decoder.finish(into: &batch)
            }
        } catch { outcome.failure = error }
        return outcome
    }

    private static let allowed: Set<FailureCode> = [
        .upstreamProtocol, .upstreamError, .outputTooLarge, .rateLimited, .overloaded, .quotaExhausted, .authentication, .permission,
        .modelNotFound, .invalidRequest, .contentFiltered,
    ]

    /// - Returns: a description of the problem; nil if there is none.
    private static func fault(_ outcome: Outcome, input: [UInt8]) -> String? {
        // An escape sequence of two bytes may become a character of three.
        if outcome.text.utf8.count + outcome.reasoning.utf8.count > 3 * input.count { return "more text than was sent" }
        if let failure = outcome.failure, !allowed.contains(failure.code) { return "code \(failure.code)" }
        for output in outcome.others {
            switch output {
            case .usage(let prompt, let completion, _):
                if let prompt, !(0...JSONScanner.maximumFigure).contains(prompt) { return "prompt tokens \(prompt)" }
                if let completion, !(0...JSONScanner.maximumFigure).contains(completion) { return "completion tokens \(completion)" }
            case .toolCall(let call):
                if call.name.isEmpty || call.name.utf8.count > 128 || call.callID.utf8.count > 1_024 { return "tool call \(call)" }
                if (try? JSON(parsing: call.arguments, rules: .lenient)) == nil { return "arguments \(call.arguments)" }
                if call.index < 0 { return "index \(call.index)" }
            default: break
            }
        }
        return nil
    }

    @Test(arguments: FuzzGrammar.Dialect.allCases)
    func `decoders accept or reject any input, with the same result in any pieces`(_ dialect: FuzzGrammar.Dialect) async {
        let inputs = Fuzz.inputs(300)
        var complete = 0
        for index in 0..<inputs {
            // Other tests share the threads.
            if index % 100 == 0 { await Task.yield() }
            var random = SplitMix64(seed: Fuzz.seed(of: index))
            var input = FuzzGrammar.body(dialect, &random)
            if Bool.random(using: &random) { FuzzGrammar.mutate(&input, &random) }
            let whole = Self.read(dialect, [input[...]])
            if whole.isComplete { complete += 1 }
            let sliced = Self.read(dialect, FuzzGrammar.slices(input, &random))
            let fault = Self.fault(whole, input: input) ?? (whole == sliced ? nil : "sliced: \(sliced)\nwhole: \(whole)")
            guard let fault else { continue }
            Issue.record("seed \(Fuzz.seed), input \(index), \(dialect): \(fault)\n\(String(decoding: input, as: UTF8.self))")
            return
        }
        #expect(complete > inputs / 100, "too few inputs were whole answers")
    }
}

extension DecoderFuzzTests.Outcome {
    mutating func add(_ output: UpstreamOutput) {
        switch output {
        case .text(let more): text += more
        case .reasoning(let more): reasoning += more
        default: others.append(output)
        }
    }
}
