import NIOCore
import Testing

@testable import RedisClient

@Suite struct RedisPipelineTests {
    @Test func `commands are encoded`() {
        var pipeline = RedisPipeline()
        pipeline.append("SET", "k", .integer(-12))
        pipeline.append(["X", .bytes([0, 13, 10]), "é"])
        pipeline.begin(arguments: 4)
        pipeline.argument("A")
        pipeline.argument([1, 2])
        pipeline.argument(ByteBuffer(string: "buffer"))
        #expect(pipeline.argumentsMissing == 1)
        pipeline.argument(0)
        #expect(pipeline.count == 3)
        #expect(pipeline.argumentsMissing == 0)
        #expect(
            String(decoding: pipeline.bytes, as: UTF8.self)
                == "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\n-12\r\n*3\r\n$1\r\nX\r\n$3\r\n\0\r\n\r\n$2\r\né\r\n"
                + "*4\r\n$1\r\nA\r\n$2\r\n\u{1}\u{2}\r\n$6\r\nbuffer\r\n$1\r\n0\r\n")
    }

    @Test func `encoded first arguments and pieces make the same command`() {
        let head = CommandHead("PUBLISH", "channel", further: 1)
        var pipeline = RedisPipeline()
        pipeline.begin(head)
        #expect(pipeline.argumentsMissing == 1)
        pipeline.argument(bytes: 12) { message in
            message += "[first".utf8
            message += ",last]".utf8
        }
        var whole = RedisPipeline()
        whole.append("PUBLISH", "channel", "[first,last]")
        #expect(pipeline.bytes == whole.bytes && pipeline.count == 1 && pipeline.argumentsMissing == 0)
        pipeline.begin(head)
        pipeline.argument(bytes: 3) { $0 += "four".utf8 }
        #expect(pipeline.argumentsMissing == 1, "is not sent")
    }

    @Test(arguments: [0, 1, 9, 10, 99, 100, -1, -9, -10, 1_000_000_007, Int.max, Int.min]) func `integers are encoded`(_ number: Int) {
        var pipeline = RedisPipeline()
        pipeline.begin(arguments: 1)
        pipeline.argument(number)
        #expect(String(decoding: pipeline.bytes, as: UTF8.self) == "*1\r\n$\("\(number)".utf8.count)\r\n\(number)\r\n")
    }

    @Test func `scripts are called by their digest`() {
        let script = RedisScript(name: "one", source: "return 1")
        #expect(script.digest == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
        var pipeline = RedisPipeline()
        pipeline.append(script, keys: ["k"], arguments: ["a", 7])
        #expect(
            String(decoding: pipeline.bytes, as: UTF8.self)
                == "*6\r\n$7\r\nEVALSHA\r\n$40\r\n\(script.digest)\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\n7\r\n")
        pipeline = RedisPipeline()
        pipeline.append(script, keys: ["k"], arguments: [], isLoaded: false)
        #expect(String(decoding: pipeline.bytes, as: UTF8.self) == "*4\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\n")
    }

    @Test func `the absent key is in the same slot`() {
        for key in ["{a}b", "x{a}{b}", "{{a}}", "{a}}b"] {
            #expect(HashSlot.absentKey(beside: key).map { HashSlot.of($0) } == HashSlot.of(key))
        }
        for key in ["ab", "{}ab", "x{}{b}", "{ab", "}ab"] { #expect(HashSlot.absentKey(beside: key) == nil) }
    }

    @Test func `scripts in a cluster have one more key`() {
        let script = RedisScript(name: "one", source: "return redis.call('PUBLISH', KEYS[1], ARGV[1])")
        #expect(script.shardedSource.hasSuffix("table.remove(KEYS) end\nreturn redis.call('SPUBLISH', KEYS[1], ARGV[1])"))
        var pipeline = RedisPipeline(isSharded: true)
        pipeline.append(script, keys: ["{a}b"], arguments: ["x"])
        #expect(
            String(decoding: pipeline.bytes, as: UTF8.self)
                == "*6\r\n$7\r\nEVALSHA\r\n$40\r\n\(script.shardedDigest)\r\n$1\r\n2\r\n$4\r\n{a}b\r\n$12\r\n{a}:-absent-\r\n"
                + "$1\r\nx\r\n")
    }

    @Test func `typed access to replies`() {
        #expect(RESPValue.text("12").integer == 12 && RESPValue.integer(3).integer == 3 && RESPValue.simple("x").integer == nil)
        #expect(RESPValue.text("a").string == "a" && RESPValue.simple("b").string == "b" && RESPValue.integer(4).string == "4")
        #expect(RESPValue.null.isNull && RESPValue.null.string == nil && RESPValue.array([.null]).array == [.null])
        #expect(RESPValue.text("a").bytes == ByteBuffer(string: "a") && RESPValue.null.bytes == nil)
        #expect(RESPValue.error("NOSCRIPT No matching script").isScriptMissing && !RESPValue.error("ERR no").isScriptMissing)
        // A name or value without text is skipped, and so is a name without a value.
        let hash = RESPValue.array([.text("a"), .integer(1), .null, .text("x"), .text("b"), .null, .text("c")])
        #expect(hash.fields == ["a": "1"] && hash.pairs.map(\.value) == [.integer(1), .text("x"), .null])
        #expect(RESPValue.null.fields.isEmpty && RESPValue.array([]).fields.isEmpty && RESPValue.array([.text("a")]).fields.isEmpty)
        #expect(throws: RedisError(.server, "ERR no")) { try RESPValue.error("ERR no").orThrow() }
    }
}
