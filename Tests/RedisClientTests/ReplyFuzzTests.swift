import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Fuzz tests with seeded input for the reader of replies and the table of subscriptions. See `Fuzz` for the settings.
@Suite(.serialized, .cpuBound)
struct ReplyFuzzTests {
    private static let inputs = Fuzz.inputs(1_500)
    private static let seed = Fuzz.seed
    /// Small, so that many lengths are close to it.
    private static let replyMaximum = 4_096

    private static let numbers = [
        "0", "-1", "1", "2", "4095", "4096", "4097", "-2", "1048576", "1048577", "4294967296", "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551616", "00", "+1", "1e3", "",
    ]

    /// Replies of all types, some with wrong lengths.
    private static func appendReply(_ out: inout [UInt8], depth: Int, _ random: inout SplitMix64) {
        let isWrong = random.next() % 24 == 0
        let number = numbers[Int(random.next() % UInt64(numbers.count))]
        switch random.next() % 6 {
        case 0: out += "+\(isWrong ? "a\rb" : "OK")\r\n".utf8
        case 1: out += "-ERR \(isWrong ? "\0" : "no")\r\n".utf8
        case 2: out += ":\(isWrong ? number : String(Int64(truncatingIfNeeded: random.next())))\r\n".utf8
        case 3, 4:
            let count = Int(random.next() % 40)
            out += "$\(isWrong ? number : String(count))\r\n".utf8
            for _ in 0..<count { out.append(UInt8(truncatingIfNeeded: random.next())) }
            out += "\r\n".utf8
        default:
            let count = depth > 0 ? Int(random.next() % 5) : 0
            out += "*\(isWrong ? number : String(count))\r\n".utf8
            for _ in 0..<count { appendReply(&out, depth: depth - 1, &random) }
        }
    }

    private static func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
        for _ in 0..<(random.next() % 4) where !bytes.isEmpty {
            let place = Int(random.next() % UInt64(bytes.count))
            switch random.next() % 4 {
            case 0: bytes[place] ^= 1 << UInt8(random.next() % 8)
            case 1: bytes[place] = Array("$*+-:0129\r\n".utf8)[Int(random.next() % 11)]
            case 2: bytes.removeSubrange(place..<min(bytes.count, place + 1 + Int(random.next() % 8)))
            default: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 8)], at: place)
            }
        }
    }

    private static func slices(_ bytes: [UInt8], _ random: inout SplitMix64) -> [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let length = 1 + Int(random.next() % 64)
            pieces.append(rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        return pieces
    }

    /// A lower bound of the bytes that a value needs in RESP.
    private static func weight(_ value: RESPValue) -> Int {
        switch value {
        case .null, .integer: 4
        case .simple(let text), .error(let text): text.unicodeScalars.count
        case .bulk(let buffer): buffer.readableBytes
        case .array(let values): values.reduce(4) { $0 + weight($1) }
        }
    }

    @Test func `mutated replies give the same result in any pieces, with bounded memory`() async {
        var random = SplitMix64(seed: Self.seed)
        var (rejected, read) = (0, 0)
        for index in 0..<Self.inputs {
            if index % 500 == 0 { await Task.yield() }
            var bytes: [UInt8] = []
            for _ in 0...(random.next() % 4) { Self.appendReply(&bytes, depth: 4, &random) }
            Self.mutate(&bytes, &random)
            let whole = readReplies([bytes[...]], replyMaximum: Self.replyMaximum)
            let sliced = readReplies(Self.slices(bytes, &random), replyMaximum: Self.replyMaximum)
            rejected += whole.error == nil ? 0 : 1
            read += whole.values.count
            guard whole.values == sliced.values, whole.error?.code == sliced.error?.code,
                whole.values.reduce(0, { $0 + Self.weight($1) }) <= bytes.count + 4
            else {
                Issue.record("seed \(Self.seed), input \(index): \(bytes): \(whole) but sliced \(sliced)")
                return
            }
        }
        // The generator produces both valid and invalid replies.
        #expect(rejected > Self.inputs / 50 && read > Self.inputs)
    }

    /// A handler is called only for its own channel and only after the confirmation.
    @Test func `mutated pushes are rejected or call only the handler of their channel`() async {
        var random = SplitMix64(seed: Self.seed &+ 1)
        let names = ["a", "b", "c"]
        for index in 0..<Self.inputs {
            if index % 500 == 0 { await Task.yield() }
            var bytes: [UInt8] = []
            for _ in 0...(random.next() % 5) {
                let name = names[Int(random.next() % 3)]
                switch random.next() % 5 {
                case 0: bytes += "*3\r\n$9\r\nsubscribe\r\n$1\r\n\(name)\r\n:1\r\n".utf8
                case 1: bytes += "*3\r\n$11\r\nunsubscribe\r\n$1\r\n\(name)\r\n:0\r\n".utf8
                case 2, 3: bytes += "*3\r\n$7\r\nmessage\r\n$1\r\n\(name)\r\n$2\r\nhi\r\n".utf8
                default: bytes += "*2\r\n$4\r\npong\r\n$0\r\n\r\n".utf8
                }
            }
            if random.next() % 2 == 0 { Self.mutate(&bytes, &random) }
            if let fault = Self.subscribe(Self.slices(bytes, &random)) {
                Issue.record("seed \(Self.seed), input \(index): \(bytes): \(fault)")
                return
            }
        }
    }

    private static func subscribe(_ pieces: [ArraySlice<UInt8>]) -> String? {
        let calls = Observed<[String]>([])
        var table = SubscriptionTable()
        for name in ["a", "b"] {
            table.subscribe(name) { event in
                switch event {
                case .subscribed: calls.update { $0.append("+" + name) }
                case .message: calls.update { $0.append("." + name) }
                case .lost: break
                }
            }
        }
        _ = table.takeChanges()
        do throws(RedisError) {
            let reader = try ReplyReader(
                sink: PushBuilder { push in
                    switch push {
                    case .message(let channel, let payload): table.receiver(of: channel)?(.message(payload))
                    case .subscribed(let channel), .unsubscribed(let channel): table.confirmed(channel)?(.subscribed)
                    case .pong, .error: break
                    }
                }, replyMaximum: replyMaximum)
            for piece in pieces {
                try reader.feed(ByteBuffer(bytes: piece))
                while try reader.next() {}
            }
        } catch {
            guard error.code == .protocolViolation else { return "rejected by \(error)" }
        }
        var active: Set<String> = []
        for call in calls.value {
            let name = String(call.dropFirst())
            if call.hasPrefix("+") {
                guard active.insert(name).inserted else { return "confirmed twice: \(name)" }
            } else if !active.contains(name) {
                return "a message before the subscription was active: \(name)"
            }
        }
        return nil
    }
}
