import Contract
import NIOCore
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// Any answer in any form that upstreams use, cut anywhere, is decoded to the same answer. See `Fuzz` for the settings.
@Suite(.cpuBound)
struct LegalStreamTests {
    /// The first difference between an answer and its stream; nil: none.
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

    /// Sends the pieces one after another, with a pause of up to 8 ms after each, and closes the connection.
    private static func send(_ pieces: ArraySlice<ArraySlice<UInt8>>, on exchange: RawServer.Exchange, _ random: SplitMix64) {
        guard let piece = pieces.first else { return exchange.close() }
        var random = random
        let pause = TimeAmount.microseconds(.random(in: 0...8_000, using: &random))
        let next = random
        exchange.send(Array(piece))
        exchange.channel.eventLoop.scheduleTask(in: pause) { send(pieces.dropFirst(), on: exchange, next) }
    }

    @Test(.timeLimit(.minutes(10)), arguments: UpstreamConfiguration.Kind.allCases)
    func `a legal stream with pauses anywhere gives its answer`(_ kind: UpstreamConfiguration.Kind) async throws {
        let server = try await RawServer { exchange in
            guard let mark = exchange.head.firstRange(of: "x-request-id: p0-legal-"),
                let index = Int(exchange.head[mark.upperBound...].prefix { $0.isNumber })
            else { return exchange.close() }
            var random = SplitMix64(seed: Fuzz.seed(of: index))
            let stream = LegalStream(kind, seed: Fuzz.seed(of: index))
            exchange.send("HTTP/1.1 200 OK\r\nContent-Type: \(stream.contentType)\r\nConnection: close\r\n\r\n")
            // At most 100 pieces; the first one has the rest.
            let pieces = FuzzGrammar.slices(stream.body, &random)
            let first = stream.body[..<(pieces.dropFirst(max(1, pieces.count - 99)).first?.startIndex ?? stream.body.count)]
            Self.send(([first] + pieces.dropFirst(max(1, pieces.count - 99)))[...], on: exchange, random)
        }
        try await Caller.with { caller in
            await caller.drain(for: .seconds(600))
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for index in 0..<Fuzz.inputs(3_000) / 100 {
                    // More connections at once would exhaust the machine's ports and the server's queue.
                    if index >= 100 { try await tasks.next() }
                    tasks.addTask {
                        var request = GenerationRequest.hello
                        request.jobID = try #require(JobID("p0-legal-\(index)"))
                        let recording = try await caller.ask(.at(server.url, kind: kind), request)
                        let fault = Self.fault(LegalStream(kind, seed: Fuzz.seed(of: index)), DecodedAnswer(recording))
                        #expect(fault == nil, "seed \(Fuzz.seed), input \(index), \(kind)")
                    }
                }
                try await tasks.waitForAll()
            }
        }
        try await server.stop()
    }
}
