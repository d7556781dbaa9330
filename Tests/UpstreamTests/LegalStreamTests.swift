import Contract
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// Any answer in any form that upstreams use, cut anywhere, is decoded to the same answer. See `Fuzz` for the settings.
@Suite(.cpuBound)
struct LegalStreamTests {
    private static func fault(_ stream: LegalStream, _ answer: DecodedAnswer) -> String? {
        if let failure = answer.failure { return "failed: \(failure)" }
        guard answer.isComplete else { return "incomplete" }
        guard answer.text == stream.text else { return "text \(answer.text.debugDescription), not \(stream.text.debugDescription)" }
        guard answer.reasoning == stream.reasoning else {
            return "reasoning \(answer.reasoning.debugDescription), not \(stream.reasoning.debugDescription)"
        }
        let expected = stream.calls.enumerated().map { "\($0.offset) \($0.element.name)\($0.element.arguments)" }
        guard answer.names == expected else { return "calls \(answer.names), not \(expected)" }
        guard Set(answer.calls.map(\.callID)).count == expected.count else { return "ids \(answer.calls.map(\.callID))" }
        guard answer.reason == stream.reason else { return "reason \(String(describing: answer.reason)), not \(stream.reason)" }
        return nil
    }

    @Test(arguments: UpstreamConfiguration.Kind.allCases)
    func `a legal stream cut anywhere gives its answer`(_ kind: UpstreamConfiguration.Kind) async throws {
        for index in 0..<Fuzz.inputs(200) {
            if index % 20 == 0 { await Task.yield() }
            let stream = LegalStream(kind, seed: Fuzz.seed(of: index))
            var random = SplitMix64(seed: Fuzz.seed(of: index))
            let bytes = stream.body
            var divisions = [[bytes[...]], bytes.indices.map { bytes[$0...$0] }]
            for _ in 0..<3 { divisions.append(FuzzGrammar.slices(bytes, &random)) }
            for pieces in divisions {
                let answer = try DecodedAnswer(kind, pieces, type: stream.contentType)
                guard let fault = Self.fault(stream, answer) else { continue }
                Issue.record(
                    "seed \(Fuzz.seed), input \(index), \(kind), \(pieces.count) pieces: \(fault)\n\(String(decoding: bytes, as: UTF8.self))"
                )
                return
            }
        }
    }
}
