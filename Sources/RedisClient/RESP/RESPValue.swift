import NIOCore

/// A reply in RESP2 (redis.io/docs/reference/protocol-spec).
package enum RESPValue: Sendable, Hashable {
    /// Both the null bulk string and the null array.
    case null
    case simple(String)
    /// Its text, as `ERR unknown command` or `NOSCRIPT No matching script`.
    case error(String)
    case integer(Int64)
    case bulk(ByteBuffer)
    case array([RESPValue])
}

extension RESPValue {
    package var isNull: Bool { self == .null }

    /// A bulk or simple string as UTF-8 (malformed bytes are replaced); also an integer's digits. Nil for the rest.
    package var string: String? {
        switch self {
        case .simple(let text): text
        case .bulk(let buffer): String(buffer: buffer)
        case .integer(let number): String(number)
        case .null, .error, .array: nil
        }
    }

    /// An integer, or a string that is the digits of one.
    package var integer: Int? {
        switch self {
        case .integer(let number): Int(number)
        case .simple, .bulk: string.flatMap { Int($0) }
        case .null, .error, .array: nil
        }
    }

    package var array: [RESPValue]? {
        if case .array(let values) = self { values } else { nil }
    }

    /// A bulk or simple string's bytes.
    package var bytes: ByteBuffer? {
        switch self {
        case .bulk(let buffer): buffer
        case .simple(let text): ByteBuffer(string: text)
        case .null, .error, .integer, .array: nil
        }
    }

    /// For messages: what kind of value it is, without its contents.
    var shape: String {
        switch self {
        case .null: "null"
        case .simple: "a simple string"
        case .error: "an error"
        case .integer: "an integer"
        case .bulk(let buffer): "a string of \(buffer.readableBytes) bytes"
        case .array(let values): "an array of \(values.count)"
        }
    }

    /// An error reply's text.
    package var errorText: String? {
        if case .error(let text) = self { text } else { nil }
    }

    /// The value, unless it is an error reply: that is thrown as `.server`.
    package func orThrow() throws(RedisError) -> RESPValue {
        if case .error(let text) = self { throw RedisError(.server, text) }
        return self
    }
}
