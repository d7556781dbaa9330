import NIOCore
import NIOWebSocket
import Testing

@testable import Gateway

/// WebSocket messages (RFC 6455) and rate limits as tables: input frames and the resulting actions.
@Suite struct MessageMachineTests {
    private static let key: WebSocketMaskingKey = [0x12, 0x34, 0x56, 0x78]

    private static func frame(
        _ opcode: WebSocketOpcode, _ bytes: [UInt8], fin: Bool = true, masked: Bool = true, rsv1: Bool = false
    ) -> WebSocketFrame {
        let key = Array(Self.key)
        let data = masked ? bytes.enumerated().map { $1 ^ key[$0 % 4] } : bytes
        return WebSocketFrame(fin: fin, rsv1: rsv1, opcode: opcode, maskKey: masked ? Self.key : nil, data: ByteBuffer(bytes: data))
    }

    private static func actions(_ frames: [WebSocketFrame], maximum: Int = 100) -> [MessageMachine.Action] {
        var machine = MessageMachine(maximum: maximum)
        return frames.map { machine.receive($0) }
    }

    @Test func `messages and fragments`() {
        #expect(Self.actions([Self.frame(.text, Array("hello".utf8))]) == [.message(ByteBuffer(string: "hello"))])
        #expect(Self.actions([Self.frame(.text, [])]) == [.message(ByteBuffer())])
        let euro = Array("a€b".utf8)
        let split = [
            Self.frame(.text, Array(euro[..<2]), fin: false), Self.frame(.ping, [1, 2]), Self.frame(.continuation, [], fin: false),
            Self.frame(.continuation, Array(euro[2...])), Self.frame(.text, [0x78]),
        ]
        #expect(
            Self.actions(split) == [
                .none, .pong(ByteBuffer(bytes: [1, 2])), .none, .message(ByteBuffer(string: "a€b")), .message(ByteBuffer(string: "x")),
            ])
    }

    @Test(arguments: 0...9) func `payloads of every length are unmasked`(_ length: Int) {
        let bytes = (0..<length).map { UInt8(0x61 + $0) }
        #expect(Self.actions([Self.frame(.text, bytes)]) == [.message(ByteBuffer(bytes: bytes))])
    }

    @Test func `protocol errors`() {
        let text = Array("x".utf8)
        let table: [(String, [WebSocketFrame], CloseCode)] = [
            ("not masked", [Self.frame(.text, text, masked: false)], .protocolError),
            ("a reserved bit", [Self.frame(.text, text, rsv1: true)], .protocolError),
            ("nothing to continue", [Self.frame(.continuation, text)], .protocolError),
            ("a message inside another", [Self.frame(.text, text, fin: false), Self.frame(.text, text)], .protocolError),
            ("an unknown opcode", [Self.frame(WebSocketOpcode(encodedWebSocketOpcode: 3)!, text)], .protocolError),
            ("binary", [Self.frame(.binary, text)], .unsupportedData),
            ("binary in fragments", [Self.frame(.binary, text, fin: false)], .unsupportedData),
            ("not UTF-8", [Self.frame(.text, [0xC3, 0x28])], .invalidPayload),
            ("a surrogate", [Self.frame(.text, [0xED, 0xA0, 0x80])], .invalidPayload),
            ("cut UTF-8", [Self.frame(.text, [0xE2, 0x82], fin: false), Self.frame(.continuation, [])], .invalidPayload),
            ("too long", [Self.frame(.text, Array(repeating: 0x61, count: 101))], .messageTooBig),
            (
                "too long in pieces",
                [
                    Self.frame(.text, Array(repeating: 0x61, count: 60), fin: false),
                    Self.frame(.continuation, Array(repeating: 0x61, count: 60)),
                ],
                .messageTooBig
            ),
        ]
        for (name, frames, code) in table {
            #expect(Self.actions(frames).last == .fail(code), "\(name)")
            #expect(
                Self.actions(frames + [Self.frame(.text, text)]).last == MessageMachine.Action.none, "\(name): frames after it are ignored")
        }
    }

    @Test func `binary frames are passed on where they are accepted`() {
        var machine = MessageMachine(maximum: 100, acceptsBinary: true)
        let audio = Array(repeating: UInt8(7), count: 60)
        let frames = [
            Self.frame(.binary, audio), Self.frame(.binary, audio, fin: false), Self.frame(.ping, []),
            Self.frame(.continuation, audio, fin: false), Self.frame(.continuation, audio), Self.frame(.text, [0x78]),
        ]
        let buffer = ByteBuffer(bytes: audio)
        let expected: [MessageMachine.Action] = [
            .binary(buffer), .binary(buffer), .pong(ByteBuffer()), .binary(buffer), .binary(buffer), .message(ByteBuffer(string: "x")),
        ]
        #expect(frames.map { machine.receive($0) } == expected && machine.heldBytes == 0)
        #expect(machine.receive(Self.frame(.binary, audio, fin: false)) == .binary(buffer))
        #expect(machine.receive(Self.frame(.text, [0x78])) == .fail(.protocolError), "a message inside another")
    }

    @Test func `invalid close frames end the connection at once`() {
        let table: [([UInt8], CloseCode)] = [
            ([3], .protocolError), ([0x03, 0xED], .protocolError), ([0x03, 0xE8, 0xFF], .invalidPayload),
        ]
        for (bytes, code) in table {
            #expect(
                Self.actions([Self.frame(.connectionClose, bytes), Self.frame(.text, [0x78])]) == [.failAtOnce(code), .none], "\(bytes)")
        }
    }

    @Test func closing() {
        #expect(Self.actions([Self.frame(.connectionClose, [])]) == [.closed(nil)])
        #expect(Self.actions([Self.frame(.connectionClose, [0x03, 0xE8])]) == [.closed(1000)])
        #expect(
            Self.actions([Self.frame(.connectionClose, [0x0F, 0xA0] + Array("bye".utf8)), Self.frame(.ping, [])]) == [.closed(4000), .none])
        #expect(Self.actions([Self.frame(.pong, [9])]) == [.none])
    }

    @Test func `unused allowance accumulates for one second`() {
        func taken(_ allowance: inout Allowance, at milliseconds: Int, of tries: Int) -> Int {
            var count = 0
            for _ in 0..<tries where allowance.take(milliseconds: milliseconds) { count += 1 }
            return count
        }
        var allowance = Allowance(perSecond: 10, milliseconds: 0)
        #expect(taken(&allowance, at: 0, of: 20) == 10)
        #expect(taken(&allowance, at: 100, of: 20) == 1)
        #expect(taken(&allowance, at: 60_000, of: 20) == 10)
        #expect(taken(&allowance, at: 0, of: 20) == 0, "a clock that goes back adds no allowance")
        var none = Allowance(perSecond: 0, milliseconds: 0)
        #expect(taken(&none, at: 0, of: 10_000) == 10_000)
    }

    @Test func `a negative allowance recovers with time`() {
        var allowance = Allowance(perSecond: 1_000, burst: 100, milliseconds: 0)
        allowance.charge(100, milliseconds: 0)
        #expect(allowance.debt(milliseconds: 0) == 0)
        allowance.charge(250, milliseconds: 0)
        #expect(allowance.debt(milliseconds: 0) == 250 && allowance.debt(milliseconds: 249) == 1 && allowance.debt(milliseconds: 250) == 0)
        allowance.charge(.max, milliseconds: 250)
        #expect(allowance.debt(milliseconds: 250) > 0)
        var none = Allowance(perSecond: 0, milliseconds: 0)
        none.charge(.max, milliseconds: 0)
        #expect(none.debt(milliseconds: 0) == 0)
    }

    @Test func `messages before REGISTER are limited`() {
        func frames(of bytes: Int, startsMessage: Bool) -> (Int, CloseCode?) {
            var budget = UnregisteredBudget()
            for count in 0..<10_000 {
                if let code = budget.take(bytes: bytes, startsMessage: startsMessage) { return (count, code) }
            }
            return (10_000, nil)
        }
        #expect(frames(of: 10, startsMessage: true) == (8, .tooManyMessages))
        #expect(frames(of: 30_000, startsMessage: true) == (2, .messageTooBig))
        #expect(frames(of: 1, startsMessage: false) == (1_008, .messageTooBig), "fragments of one byte also use the budget")
        #expect(frames(of: 0, startsMessage: false) == (1_024, .messageTooBig))
    }

    @Test func origins() {
        let table: [([String]?, String?, String?, Bool)] = [
            (nil, nil, "a:80", true), (nil, "http://a:8080", "a:8080", true), (nil, "http://a", "a:80", true),
            (nil, "https://a", "a:443", true),
            (nil, "https://A", "a", true), (nil, "http://b", "a", false), (nil, "http://a:8080", "a", false), (nil, "null", "a", false),
            (nil, "http://a", nil, false), (["https://x.example"], "https://x.example", "a", true),
            (["https://x.example"], "https://x.example/", "a", true), (["https://x.example"], "http://x.example", "a", false),
            (["https://x.example"], "http://a", "a", false), (["https://x.example"], nil, "a", true),
            (["https://x.example"], "https://x.example.evil", "a", false),
        ]
        for (allowed, origin, host, expected) in table {
            #expect(OriginRule(allowed: allowed).allows(origin: origin, host: host) == expected, "\(allowed ?? []) \(origin ?? "-")")
        }
    }
}
