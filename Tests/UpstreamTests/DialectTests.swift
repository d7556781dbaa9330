import Contract
import JSONCodec
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// The result of decoding a stream.
private struct Decoded: Equatable {
    var outputs: [UpstreamOutput] = []
    var chunks = 0
    var isComplete = false
    var failure: Failure?

    init(_ kind: UpstreamConfiguration.Kind, _ pieces: [ArraySlice<UInt8>]) throws {
        let upstream = UpstreamConfiguration.at("http://x", kind: kind)
        let type = kind == .ollama ? "application/x-ndjson" : "text/event-stream"
        let decoder = try upstream.adapter.decoder(for: HTTPResponseHead(status: 200, contentType: type))
        var batch = OutputBatch()
        do throws(Failure) {
            for piece in pieces {
                try decoder.receive(Array(piece).span, into: &batch)
            }
            try decoder.finish(into: &batch)
        } catch {
            failure = error
        }
        outputs = batch.outputs
        chunks = batch.chunks
        isComplete = decoder.isComplete
    }
}

struct DialectTests {
    @Test(arguments: Recorded.all) func `the result does not depend on the pieces`(_ recorded: Recorded) throws {
        let bytes = Array(recorded.stream.utf8)
        let whole = try Decoded(recorded.kind, [bytes[...]])
        #expect(whole.outputs == recorded.outputs)
        #expect(whole.chunks == recorded.chunks)
        #expect(whole.isComplete == recorded.isComplete)
        #expect(whole.failure?.code == recorded.failure)
        #expect(whole.failure?.upstreamStatus == recorded.status)
        #expect(try Decoded(recorded.kind, bytes.indices.map { bytes[$0...$0] }) == whole)
        for cut in bytes.indices {
            guard try Decoded(recorded.kind, [bytes[..<cut], bytes[cut...]]) == whole else {
                Issue.record("sliced at \(cut)")
                return
            }
        }
    }

    /// The result is the same in any pieces, with at most one end, and the arguments of all tool calls are JSON.
    @Test(arguments: Recorded.all) func `mutated streams end with a result or a failure`(_ recorded: Recorded)
        throws
    {
        let seed = recorded.name.utf8.reduce(UInt64(7)) { $0 &* 31 &+ UInt64($1) }
        var generator = SplitMix64(seed: seed)
        let bits = [
            "{", "}", "[", "]", "\"", ":", ",", "\n", "\n\n", "data:", "null", "-1e400", "99999999999999999999", "\\u", "\r", "\u{0}",
        ]
        for round in 0..<300 {
            var bytes = Array(recorded.stream.utf8)
            for _ in 0..<Int.random(in: 1...4, using: &generator) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...20, using: &generator)))
                case 2: bytes.insert(contentsOf: (bits.randomElement(using: &generator) ?? "").utf8, at: place)
                default: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 40)], at: place)
                }
            }
            let whole = try Decoded(recorded.kind, [bytes[...]])
            let cut = Int.random(in: 0...bytes.count, using: &generator)
            let sliced = try Decoded(recorded.kind, [bytes[..<cut], bytes[cut...]])
            let ends = whole.outputs.count { if case .finished = $0 { true } else { false } }
            let arguments = whole.outputs.compactMap { if case .toolCall(let call) = $0 { call.arguments } else { nil } }
            guard whole == sliced, ends <= 1, arguments.allSatisfy({ (try? JSON(parsing: $0)) != nil }) else {
                Issue.record("round \(round), cut at \(cut): \(String(decoding: bytes, as: UTF8.self))\n\(whole)\n\(sliced)")
                return
            }
        }
    }

    @Test func `the arguments of tool calls are limited`() throws {
        var tools = ToolCallAssembler()
        let part = String(repeating: "x", count: 1 << 20)
        let error = #expect(throws: Failure.self) {
            for _ in 0..<20 { try tools.add(.init(index: 0, arguments: part)) }
        }
        #expect(error?.code == .outputTooLarge)
        var named = ToolCallAssembler()
        #expect(throws: Failure.self) { for index in 0..<40 { try named.add(.init(index: 0, name: "\(index)\(part)")) } }
        var many = ToolCallAssembler()
        #expect(throws: Failure.self) { for index in 0..<2000 { try many.add(.init(index: index, name: "f")) } }
    }

    @Test func `tool calls without an index are distinguished by their ids`() throws {
        var tools = ToolCallAssembler()
        try tools.add(.init(id: "a", name: "f", arguments: "{"))
        try tools.add(.init(arguments: "}"))
        try tools.add(.init(id: "b", name: "g", arguments: "{}"))
        #expect(try tools.finish().map(\.callID) == ["a", "b"])
    }
}
