import Contract
import Support
import TestSupport
import Testing

@testable import Upstream

@Suite(.serialized, .cpuBound)
struct EventStreamParserTests {
    struct Event: Equatable, Sendable, CustomStringConvertible {
        var name = ""
        var data: String
        var comment = ""
        init(_ data: String, name: String = "", comment: String = "") {
            self.data = data
            self.name = name
            self.comment = comment
        }
        var description: String { "\(name)|\(data)|\(comment)" }
    }

    static func parse(_ pieces: [ArraySlice<UInt8>], finish: Bool = true) throws(Failure) -> [Event] {
        var parser = EventStreamParser()
        var events: [Event] = []
        func keep(_ event: ServerSentEvent) {
            events.append(
                Event(
                    String(decoding: event.data), name: String(decoding: event.name),
                    comment: String(decoding: event.comment)))
        }
        for piece in pieces {
            // Each piece has its own memory, so that access outside of it or after the call is detected.
            let bytes = Array(piece)
            try parser.feed(bytes.span) { (event) throws(Failure) in keep(event) }
        }
        if finish { try parser.finish { (event) throws(Failure) in keep(event) } }
        return events
    }

    static let table: [(String, [Event])] = [
        ("data: a\n\n", [Event("a")]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", [Event("a"), Event("b")]),
        ("data: a\r\rdata: b\r\r", [Event("a"), Event("b")]),
        ("data: a\n\r\ndata: b\r\n\rdata: c\n\n", [Event("a"), Event("b"), Event("c")]),
        ("\u{FEFF}data: bom\n\n\u{FEFF}data: none\n\n", [Event("bom")]),
        (": a comment\n\n:\n\ndata: x\n\n", [Event("x")]),
        ("data: first\ndata: second\ndata:\ndata:  third\n\n", [Event("first\nsecond\n\n third")]),
        ("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"a\":1}\n\n", [Event("{\"a\":1}", name: "result", comment: "HTTP_STATUS/200")]),
        ("event: ping\n\n", [Event("", name: "ping")]),
        ("data\n\ndata:\n\n", [Event(""), Event("")]),
        ("retry: 10\nid\nunknown: x\ndatas: y\ndata: z\n\n", [Event("z")]),
        ("data: cut off", [Event("cut off")]),
        ("data: one\n\ndata: two\n", [Event("one"), Event("two")]),
        ("data: 你好，世界 🌍\n\n", [Event("你好，世界 🌍")]),
        ("\n\n\n\r\r\n", []),
        ("", []),
        ("data: a: b:c\nevent:e:f\n\n", [Event("a: b:c", name: "e:f")]),
    ]

    @Test(arguments: table) func `the events do not depend on the pieces`(document: String, expected: [Event]) throws {
        let bytes = Array(document.utf8)
        #expect(try Self.parse([bytes[...]]) == expected)
        #expect(try Self.parse(bytes.indices.map { bytes[$0...$0] }) == expected)
        for first in 0...bytes.count {
            for second in first...bytes.count {
                let events = try Self.parse([bytes[..<first], bytes[first..<second], bytes[second...]])
                guard events == expected else {
                    Issue.record("sliced at \(first) and \(second): \(events)")
                    return
                }
            }
        }
    }

    @Test func `an event is delivered at its blank line`() throws {
        #expect(try Self.parse([Array("data: a\n\n".utf8)[...]], finish: false) == [Event("a")])
        #expect(try Self.parse([Array("data: a\r\n\r".utf8)[...]], finish: false) == [Event("a")])
        #expect(try Self.parse([Array("data: a\n".utf8)[...]], finish: false) == [])
    }

    @Test func `the length of a line is limited`() throws {
        let head = Array("data: ".utf8)
        let fits = head + [UInt8](repeating: 0x61, count: EventStreamParser.lineLimit - head.count)
        for slice in [fits.count, 4096] {
            let pieces = stride(from: 0, to: fits.count, by: slice).map { fits[$0..<min($0 + slice, fits.count)] }
            #expect(try Self.parse(pieces + [[0x0A, 0x0A]]).first?.data.utf8.count == fits.count - head.count)
            let error = #expect(throws: Failure.self) { try Self.parse(pieces + [[0x61], [0x0A]]) }
            #expect(error?.code == .upstreamProtocol)
        }
    }

    @Test func `the size of an event is limited`() throws {
        let line = Array("data: ".utf8) + [UInt8](repeating: 0x61, count: 100_000) + [0x0A]
        let error = #expect(throws: Failure.self) { try Self.parse(Array(repeating: line[...], count: 100)) }
        #expect(error?.code == .upstreamProtocol)
    }

    @Test func `random streams give the same events whole and in pieces`() throws {
        var generator = SplitMix64(seed: 11)
        let alphabet: [[UInt8]] = ["data: x", "data:", ":c", "event: e", "\n", "\r", "\r\n", "\n\n", "id: 1", "\u{FEFF}", "é", "data"].map {
            Array($0.utf8)
        }
        for _ in 0..<3000 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 0..<24, using: &generator) { bytes += alphabet.randomElement(using: &generator)! }
            var pieces: [ArraySlice<UInt8>] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + Int.random(in: 1...5, using: &generator))
                pieces.append(bytes[start..<end])
                start = end
            }
            let whole = try Self.parse([bytes[...]])
            let sliced = try Self.parse(pieces)
            guard whole == sliced else {
                Issue.record("\(String(decoding: bytes, as: UTF8.self).debugDescription): \(whole) and \(sliced)")
                return
            }
        }
    }
}
