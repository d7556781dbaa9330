import Support

/// Assigns keys to the hash slots of a cluster.
package enum HashSlot {
    /// Number of slots of every cluster.
    package static let count = 16_384

    /// The slot of a key or a sharded channel, 0 to 16383. If the key contains `{…}` with at least one byte between the first `{` and the next
    /// `}`, only those bytes are hashed (Redis Cluster specification, "Hash tags").
    package static func of(_ key: some Collection<UInt8>) -> Int {
        if let open = key.firstIndex(of: UInt8(ascii: "{")) {
            let rest = key[key.index(after: open)...]
            if let close = rest.firstIndex(of: UInt8(ascii: "}")), close != rest.startIndex {
                return Int(CRC16.checksum(rest[..<close])) % count
            }
        }
        return Int(CRC16.checksum(key)) % count
    }

    package static func of(_ key: String) -> Int { of(key.utf8) }

    /// A key that is in the slot of another one, and that nothing creates. Nil beside a key without a hash tag.
    static func absentKey(beside key: String) -> String? {
        guard let open = key.firstIndex(of: "{"), let close = key[open...].firstIndex(of: "}"), key.index(after: open) != close else {
            return nil
        }
        return "\(key[open...close]):-absent-"
    }
}
