import NIOCore

/// A reply in RESP2 (redis.io/docs/reference/protocol-spec).
package enum RESPValue: Sendable, Hashable {
    /// Both the null bulk string and the null array.
    case null
    case simple(String)
    /// An error reply with its text, for example `ERR unknown command` or `NOSCRIPT No matching script`.
    case error(String)
    case integer(Int64)
    case bulk(ByteBuffer)
    case array([RESPValue])
}

extension RESPValue {
    package var isNull: Bool { self == .null }

    /// The text of a bulk or simple string as UTF-8 (malformed bytes are replaced), or the digits of an integer. Nil for other values.
    package var string: String? {
        switch self {
        case .simple(let text): text
        case .bulk(let buffer): String(buffer: buffer)
        case .integer(let number): String(number)
        case .null, .error, .array: nil
        }
    }

    /// The value of an integer, or of a string of decimal digits. Nil for other values.
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

    /// The pairs of an array `name, value, name, value, …`, as HGETALL and XINFO return it. Empty for other values.
    package var pairs: some Sequence<(name: RESPValue, value: RESPValue)> {
        let values = array ?? []
        return stride(from: 0, to: values.count - 1, by: 2).lazy.map { (values[$0], values[$0 + 1]) }
    }

    /// The pairs as a dictionary of their texts, without values that have no text. Empty for other values.
    package var fields: [String: String] {
        var fields: [String: String] = [:]
        for (name, value) in pairs {
            if let name = name.string, let value = value.string { fields[name] = value }
        }
        return fields
    }

    /// The bytes of a bulk or simple string. Nil for other values.
    package var bytes: ByteBuffer? {
        switch self {
        case .bulk(let buffer): buffer
        case .simple(let text): ByteBuffer(string: text)
        case .null, .error, .integer, .array: nil
        }
    }

    /// The kind of value for error messages, without its contents.
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

    /// The text of an error reply. Nil for other values.
    package var errorText: String? {
        if case .error(let text) = self { text } else { nil }
    }

    /// Whether there is no reply to this command of a pipeline, because its shard is not reachable; other shards have replied.
    package var isUnavailable: Bool { errorText?.hasPrefix("UNAVAILABLE") ?? false }

    /// Whether the reply is the error of an EVALSHA for a script that the server does not have.
    package var isScriptMissing: Bool { errorText?.hasPrefix("NOSCRIPT") ?? false }

    /// Returns the value, or throws an error reply as `.server`.
    package func orThrow() throws(RedisError) -> RESPValue {
        if case .error(let text) = self { throw RedisError(.server, text) }
        return self
    }
}
