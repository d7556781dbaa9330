import NIOCore
import Support

/// One argument of a command: a string, an integer or bytes. Literals convert implicitly.
package enum RedisArgument: Sendable, ExpressibleByStringLiteral, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
    case string(String)
    case integer(Int)
    case bytes([UInt8])

    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
}

/// A sequence of commands that are sent in one write and answered in order.
///
/// Every command must have exactly one reply, so SUBSCRIBE, MONITOR, CLIENT REPLY and similar commands are not allowed.
package struct RedisPipeline: Sendable {
    package private(set) var buffer = ByteBuffer()
    /// Number of commands, and so of expected replies.
    package private(set) var count = 0
    /// Arguments declared by `begin` and not yet written; 0 in a complete pipeline.
    private(set) var argumentsMissing = 0

    /// Whether messages are published to sharded channels, as in a cluster.
    package let isSharded: Bool
    /// The key whose node executes commands without a key; nil for any node. Without effect outside a cluster.
    package var nearKey: String?

    /// - Parameter isSharded: see `isSharded`; `RedisClient.makePipeline` knows it.
    package init(isSharded: Bool = false) { self.isSharded = isSharded }

    /// Some commands of a pipeline.
    init(buffer: ByteBuffer, count: Int) {
        self.buffer = buffer
        self.count = count
        isSharded = true
    }

    /// The command that publishes a message: PUBLISH, or SPUBLISH in a cluster.
    package var publishCommand: String { isSharded ? "SPUBLISH" : "PUBLISH" }

    package mutating func append(contentsOf other: RedisPipeline) {
        buffer.writeImmutableBuffer(other.buffer)
        count += other.count
        argumentsMissing += other.argumentsMissing
    }

    /// Appends a command. PUBLISH becomes SPUBLISH if the pipeline is sharded.
    package mutating func append(_ arguments: [RedisArgument]) {
        begin(arguments: arguments.count)
        var values = arguments[...]
        if isSharded, case .string("PUBLISH") = values.first {
            argument(publishCommand)
            values.removeFirst()
        }
        for value in values { argument(value) }
    }

    package mutating func append(_ arguments: RedisArgument...) {
        append(arguments)
    }

    /// Appends a script call: EVALSHA, or EVAL, which sends the source and loads the script.
    /// - Parameter isLoaded: whether the server has the script; false after a reply that `isScriptMissing`.
    package mutating func append(_ script: RedisScript, keys: [String], arguments: [RedisArgument], isLoaded: Bool = true) {
        // See `RedisScript.shardedSource`.
        let absentKey = isSharded ? keys.first.flatMap(HashSlot.absentKey(beside:)) : nil
        let keyCount = keys.count + (absentKey == nil ? 0 : 1)
        begin(arguments: 3 + keyCount + arguments.count)
        argument(isLoaded ? "EVALSHA" : "EVAL")
        if isSharded {
            argument(isLoaded ? script.shardedDigest : script.shardedSource)
        } else {
            argument(isLoaded ? script.digest : script.source)
        }
        argument(keyCount)
        for key in keys { argument(key) }
        if let absentKey { argument(absentKey) }
        for value in arguments { argument(value) }
    }

    /// Begins a command without allocating an array of arguments, for hot paths. Exactly `arguments` (at least 1) calls of `argument` must
    /// follow.
    package mutating func begin(arguments: Int) {
        header(UInt8(ascii: "*"), arguments)
        argumentsMissing += arguments
        count += 1
    }

    /// Begins a command of which the first arguments are encoded already.
    mutating func begin(encoded bytes: [UInt8], further: Int) {
        buffer.writeBytes(bytes)
        argumentsMissing += further
        count += 1
    }

    /// Writes an argument of known length in pieces.
    /// - Parameters:
    ///   - count: the argument's bytes. With another number of bytes the pipeline is not sent.
    ///   - write: writes the pieces.
    package mutating func argument(bytes count: Int, _ write: (inout ByteBuffer) -> Void) {
        header(UInt8(ascii: "$"), count)
        let start = buffer.writerIndex
        write(&buffer)
        if buffer.writerIndex - start == count { argumentsMissing -= 1 }
        endLine()
    }

    package mutating func argument(_ text: String) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), text.utf8.count)
        buffer.writeString(text)
        endLine()
    }

    package mutating func argument(_ bytes: [UInt8]) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), bytes.count)
        buffer.writeBytes(bytes)
        endLine()
    }

    package mutating func argument(_ bytes: ByteBuffer) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), bytes.readableBytes)
        buffer.writeImmutableBuffer(bytes)
        endLine()
    }

    package mutating func argument(_ number: Int) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), Self.length(number))
        write(number)
        endLine()
    }

    private mutating func argument(_ value: RedisArgument) {
        switch value {
        case .string(let text): argument(text)
        case .integer(let number): argument(number)
        case .bytes(let bytes): argument(bytes)
        }
    }

    private mutating func header(_ type: UInt8, _ number: Int) {
        // The common case in one step.
        if (10..<100).contains(number) {
            let (tens, ones) = (UInt8(0x30 + number / 10), UInt8(0x30 + number % 10))
            buffer.writeMultipleIntegers(type, tens, ones, 0x0D0A as UInt16)
            return
        }
        buffer.writeInteger(type)
        write(number)
        endLine()
    }

    private mutating func endLine() {
        buffer.writeInteger(0x0D0A as UInt16)
    }

    /// Number of characters of the decimal form.
    private static func length(_ number: Int) -> Int {
        var digits = number < 0 ? 2 : 1
        var rest = number.magnitude / 10
        while rest > 0 {
            digits += 1
            rest /= 10
        }
        return digits
    }

    /// Writes the decimal form without allocating a `String`.
    private mutating func write(_ number: Int) {
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var start = digits.count
        var rest = number.magnitude
        repeat {
            start -= 1
            digits[start] = UInt8(0x30 + rest % 10)
            rest /= 10
        } while rest > 0
        if number < 0 {
            start -= 1
            digits[start] = UInt8(ascii: "-")
        }
        buffer.writeBytes(digits.span.extracting(start..<digits.count).raw)
    }
}
