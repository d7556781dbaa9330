import NIOCore
import TestSupport
import Testing

@testable import RedisClient

@Suite struct ReplyReaderTests {
    private static let shapes: [RESPValue] = [
        .null, .simple(""), .simple("OK"), .error("ERR no"), .integer(0), .integer(-7), .integer(.max), .integer(.min), .text(""),
        .text("a"), .text("\r\n"),
        .array([]), .array([.null]), .array([.integer(1), .text("x")]), .array([.array([]), .array([.null])]),
        .array([.error("E"), .simple("")]),
    ]

    @Test(arguments: shapes) func `all types of replies in pieces of any length`(_ value: RESPValue) {
        let bytes = value.encoded
        let cuts = bytes.count - 1
        // Up to 14 bytes: all ways to cut them. More: all pairs of cuts.
        if cuts <= 13 {
            for mask in 0..<(1 << cuts) {
                var pieces: [[UInt8]] = [[]]
                for (index, byte) in bytes.enumerated() {
                    pieces[pieces.count - 1].append(byte)
                    if index < cuts, mask & 1 << index != 0 { pieces.append([]) }
                }
                #expect(readReplies(pieces) == ([value], nil))
            }
        } else {
            for first in 0...cuts {
                for second in first...cuts {
                    #expect(readReplies([bytes[..<first], bytes[first..<second], bytes[second...]]) == ([value], nil))
                }
            }
        }
        #expect(readReplies(bytes.map { [$0] }) == ([value], nil))
    }

    @Test func `many replies in one piece`() {
        #expect(readReplies([Self.shapes.flatMap(\.encoded)]) == (Self.shapes, nil))
    }

    @Test func `null arrays`() {
        #expect(readReplies([Array("*-1\r\n*2\r\n*-1\r\n:1\r\n".utf8)]) == ([.null, .array([.null, .integer(1)])], nil))
    }

    @Test func `the result does not depend on the pieces`() async {
        let alphabet = Array("$*:+-0129a\r\n".utf8)
        var inputs: [[UInt8]] = [[]]
        for _ in 0..<4 {
            inputs = inputs.flatMap { input in alphabet.map { input + [$0] } }
            for (index, input) in inputs.enumerated() {
                // Other tests share the threads.
                if index % 250 == 0 { await Task.yield() }
                // A line end completes the header of short inputs.
                for ending in [[], [13, 10], [13, 10, 97, 13, 10]] as [[UInt8]] {
                    let bytes = input + ending
                    let whole = readReplies([bytes])
                    let single = readReplies(bytes.map { [$0] })
                    if whole.values != single.values || whole.error?.code != single.error?.code {
                        Issue.record("\(bytes): \(whole) but byte by byte \(single)")
                        return
                    }
                }
            }
        }
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>) func `large replies in random pieces`(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let values = (0..<20).map { _ in Self.value(depth: 5, &random) }
        let bytes = values.flatMap(\.encoded)
        var pieces: [ArraySlice<UInt8>] = []
        var rest = bytes[...]
        let largest = [1, 7, 100, 4096, 100_000].randomElement(using: &random) ?? 1
        while !rest.isEmpty {
            let length = Int.random(in: 1...min(largest, rest.count), using: &random)
            pieces.append(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        #expect(readReplies(pieces) == (values, nil))
    }

    private static func value(depth: Int, _ random: inout SplitMix64) -> RESPValue {
        switch Int.random(in: 0..<(depth > 0 ? 8 : 5), using: &random) {
        case 0: .null
        case 1: .simple(String(repeating: "s", count: Int.random(in: 0...500, using: &random)))
        case 2: .error(String(repeating: "e", count: Int.random(in: 0...500, using: &random)))
        case 3: .integer(Int64.random(in: .min ... .max, using: &random))
        case 4:
            .bulk(ByteBuffer(bytes: (0..<Int.random(in: 0...5_000, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }))
        default: .array((0..<Int.random(in: 0...6, using: &random)).map { _ in value(depth: depth - 1, &random) })
        }
    }

    @Test func `a bulk string of many megabytes`() {
        let value = RESPValue.bulk(ByteBuffer(repeating: 0x78, count: 40 << 20))
        let bytes = value.encoded
        let pieces = stride(from: 0, to: bytes.count, by: 65_536).map { bytes[$0..<min($0 + 65_536, bytes.count)] }
        #expect(readReplies(pieces) == ([value], nil))
    }

    @Test func `the nesting depth is limited`() {
        #expect(readReplies([Array((String(repeating: "*1\r\n", count: 7) + ":1\r\n").utf8)]).error == nil)
        let deep = readReplies([Array(String(repeating: "*1\r\n", count: 40).utf8)])
        #expect(deep.error?.code == .protocolViolation)
        #expect(deep.error?.message.contains("depth") == true)
    }

    @Test(
        arguments: [
            ("$-2\r\n", "out of range"), ("$-9223372036854775808\r\n", "out of range"), ("*-2\r\n", "out of range"),
            ("*4294967296\r\n", "out of range"),
            ("*1048577\r\n", "elements"), ("*2\r\n*1048500\r\n", nil), ("*1048576\r\n*1\r\n", "elements"), ("$536870913\r\n", "512 MB"),
            ("$536870912\r\n", nil),
            ("$9999999999\r\n", "512 MB"),
            ("$9223372036854775807\r\nx", "512 MB"), ("*2\r\n$9999999999\r\n", "512 MB"), ("$3\r\nabcde", "CR LF"),
            ("$3\r\nabc\r\r", "CR LF"), (":12a\r\n", "integer"),
            (":\r\n", "integer"), ("$1x\r\n", "length"), ("?\r\n", "type"), ("%1\r\n", nil), ("HTTP/1.1 400 Bad Request\r\n", "\"H\""),
        ] as [(String, String?)]) func `invalid replies are rejected`(_ input: String, _ reason: String?)
    {
        for pieces in [[Array(input.utf8)], input.utf8.map { [$0] }] {
            let (values, error) = readReplies(pieces)
            #expect(values.isEmpty)
            guard let reason else { continue }
            #expect(error?.code == .protocolViolation)
            #expect(error?.message.contains(reason) == true, "\(error?.message ?? "no error")")
        }
    }

    @Test(arguments: ["+", "-", ":", "*", "$"]) func `the length of a line is limited`(_ type: String) {
        let line = Array((type + String(repeating: "1", count: 1_000)).utf8)
        let (values, error) = readReplies([line] + Array(repeating: line.dropFirst(), count: 100).map(Array.init))
        #expect(values.isEmpty)
        #expect(error?.message.contains("64 KB") == true)
    }

    @Test func `memory is allocated for received elements only`() {
        let (values, error) = readReplies([Array("*1048576\r\n:1\r\n".utf8)])
        #expect(values.isEmpty && error == nil)
    }

    // MARK: Pushes

    private static func pushes(_ text: String, sliced: Bool) -> ([String], RedisError?) {
        var found: [String] = []
        do throws(RedisError) {
            let reader = try ReplyReader(sink: PushBuilder { push in found.append(describe(push)) })
            for piece in sliced ? text.utf8.map({ [$0] }) : [Array(text.utf8)] {
                try reader.feed(ByteBuffer(bytes: piece))
                while try reader.next() {}
            }
        } catch {
            return (found, error)
        }
        return (found, nil)
    }

    private static func describe(_ push: Push) -> String {
        switch push {
        case .message(let channel, let payload): "\(String(buffer: channel))=\(String(buffer: payload))"
        case .subscribed(let channel): "+\(String(buffer: channel))"
        case .unsubscribed(let channel): "-\(String(buffer: channel))"
        case .pong: "pong"
        case .error(let text): "!\(text)"
        }
    }

    @Test(arguments: [false, true]) func `pushes of a subscription`(sliced: Bool) {
        let text =
            "*3\r\n$9\r\nsubscribe\r\n$2\r\nab\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$2\r\nab\r\n$5\r\nhello\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n"
            + "*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n*3\r\n$11\r\nunsubscribe\r\n$2\r\nab\r\n:0\r\n-NOPERM no\r\n"
        let (found, error) = Self.pushes(text, sliced: sliced)
        #expect(found == ["+ab", "ab=hello", "c=", "pong", "pong", "-ab", "!NOPERM no"])
        #expect(error == nil)
        #expect(Self.pushes("*1\r\n$7\r\nmessage\r\n", sliced: sliced).1?.code == .protocolViolation)
        #expect(Self.pushes(":1\r\n", sliced: sliced).1?.code == .protocolViolation)
        #expect(Self.pushes("*3\r\n*2\r\n$7\r\nmessage\r\n:1\r\n:1\r\n:1\r\n", sliced: sliced).1?.code == .protocolViolation)
    }
}
