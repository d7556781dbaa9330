import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Mutated replies, read in pieces of any size. `SLUICE_FUZZ_INPUTS` (1,000) and `SLUICE_FUZZ_SEED` (1) choose them.
@Suite struct ReplyFuzzTests {
    private static let samples = [
        "+OK\r\n", "-ERR no\r\n", ":9223372036854775807\r\n", "$5\r\nhello\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n",
        "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\ne\r\n$2\r\n{}\r\n*2\r\n$3\r\n1-1\r\n*-1\r\n",
        "*3\r\n$7\r\nmessage\r\n$3\r\nout\r\n$4\r\n[{}]\r\n", "*3\r\n$9\r\nsubscribe\r\n$3\r\nout\r\n:1\r\n", "+PONG\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "*2147483647\r\n:1\r\n", "$536870913\r\n", "*16777217\r\n",
    ].map { Array($0.utf8) }

    private final class Found {
        var count = 0
        var bytes = 0
    }

    private static func size(_ value: RESPValue) -> Int {
        switch value {
        case .array(let values): values.reduce(1) { $0 + size($1) }
        case .bulk(let buffer): buffer.readableBytes + 1
        case .simple(let text), .error(let text): text.utf8.count + 1
        case .integer, .null: 1
        }
    }

    @Test func `a mutated reply is read or refused, and costs no more than its bytes`() async {
        var replies = 0
        await Fuzz.run(1_000) { mutator, number in
            var bytes: [UInt8] = []
            for _ in 0...mutator.below(3) { bytes += mutator.pick(Self.samples) }
            bytes = mutator.bytes(bytes)
            let found = Found()
            let sink: any ReplySink =
                mutator.oneIn(3)
                ? PushBuilder { _ in found.count += 1 }
                : ReplyBuilder {
                    found.count += 1
                    found.bytes += Self.size($0)
                }
            do throws(RedisError) {
                let reader = try ReplyReader(sink: sink)
                var rest = bytes[...]
                while !rest.isEmpty {
                    let piece = rest.prefix(1 + mutator.below(12))
                    rest = rest.dropFirst(piece.count)
                    try reader.feed(ByteBuffer(bytes: piece))
                    while try reader.next() {}
                }
            } catch {
                check(error.code == .protocolViolation, number)
            }
            check(found.bytes <= 4 * bytes.count && found.count <= bytes.count, number)
            replies += found.count
        }
        #expect(replies > Fuzz.inputs(1_000) / 10)
    }
}

/// Records an issue that names seed and input. Unlike `#expect` it costs nothing while all is well.
private func check(_ isRight: Bool, _ number: Int, sourceLocation: SourceLocation = #_sourceLocation) {
    if !isRight { Issue.record("seed \(Fuzz.seed), input \(number)", sourceLocation: sourceLocation) }
}
