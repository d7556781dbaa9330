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
    /// The encoded commands.
    package private(set) var bytes: [UInt8] = []
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
    init(bytes: some Sequence<UInt8>, count: Int) {
        self.bytes = Array(bytes)
        self.count = count
        isSharded = true
    }

    /// Allocates memory for commands.
    /// - Parameter size: in bytes.
    package mutating func reserve(_ size: Int) { bytes.reserveCapacity(size) }

    /// The command that publishes a message: PUBLISH, or SPUBLISH in a cluster.
    package var publishCommand: String { isSharded ? "SPUBLISH" : "PUBLISH" }

    package mutating func append(contentsOf other: RedisPipeline) {
        bytes.append(contentsOf: other.bytes)
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
    mutating func begin(encoded start: [UInt8], further: Int) {
        bytes.append(contentsOf: start)
        argumentsMissing += further
        count += 1
    }

    /// Writes an argument of known length in pieces.
    /// - Parameters:
    ///   - count: the argument's bytes. With another number of bytes the pipeline is not sent.
    ///   - write: writes the pieces.
    package mutating func argument(bytes count: Int, _ write: (inout [UInt8]) -> Void) {
        header(UInt8(ascii: "$"), count)
        let start = bytes.count
        write(&bytes)
        if bytes.count - start == count { argumentsMissing -= 1 }
        endLine()
    }

    package mutating func argument(_ text: String) { argument(text.utf8, count: text.utf8.count) }

    package mutating func argument(_ value: [UInt8]) { argument(value, count: value.count) }

    package mutating func argument(_ value: ByteBuffer) { argument(value.readableBytesView, count: value.readableBytes) }

    private mutating func argument(_ value: some Sequence<UInt8>, count: Int) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), count)
        bytes.append(contentsOf: value)
        endLine()
    }

    package mutating func argument(_ number: Int) {
        argumentsMissing -= 1
        header(UInt8(ascii: "$"), number.decimalLength)
        bytes.appendDecimal(number)
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
        bytes.append(type)
        bytes.appendDecimal(number)
        endLine()
    }

    private mutating func endLine() {
        bytes.append(0x0D)
        bytes.append(0x0A)
    }
}
