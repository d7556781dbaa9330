/// The name of a job. Ids made here are `p<partition>-<ULID>`; one from elsewhere may be any 1 to 128 of `A-Z a-z 0-9 . _ : -`.
package struct JobID: Hashable, Sendable, Comparable, CustomStringConvertible {
    package static let maximumLength = NameLimit.id

    package let rawValue: String

    /// Nil unless it is 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    package init?(_ rawValue: String) {
        guard !rawValue.isEmpty, rawValue.utf8.count <= Self.maximumLength, rawValue.utf8.allSatisfy(Self.isAllowed) else { return nil }
        self.rawValue = rawValue
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: ":"),
            UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    /// A new id in a partition: sorts by time, unique among all nodes (80 random bits a millisecond).
    package init(partition: Int, milliseconds: UInt64) {
        rawValue = "p\(partition)-\(ULID(milliseconds: milliseconds))"
    }

    package var description: String { rawValue }

    package static func < (left: JobID, right: JobID) -> Bool { left.rawValue < right.rawValue }

    /// The partition that an id says by its `p<digits>-`, else crc16(id) mod `partitions`. What it says may be out of range: the caller
    /// checks.
    package func partition(of partitions: Int) -> Int { Partition.of(rawValue, of: partitions) }
}

package enum Partition {
    package static func of(_ id: String, of partitions: Int) -> Int {
        stated(by: id) ?? Int(crc16(id.utf8)) % partitions
    }

    /// The number in `p<digits>-…`.
    private static func stated(by id: String) -> Int? {
        let bytes = id.utf8
        guard bytes.first == UInt8(ascii: "p"), let dash = bytes.firstIndex(of: UInt8(ascii: "-")) else { return nil }
        let digits = bytes[bytes.index(after: bytes.startIndex)..<dash]
        guard (1...9).contains(digits.count), digits.allSatisfy({ $0 &- 0x30 < 10 }) else { return nil }
        return Int(String(decoding: digits, as: UTF8.self))
    }

    /// CRC-16/XMODEM, Redis Cluster's key hash (Redis Cluster specification, appendix A).
    package static func crc16(_ bytes: some Sequence<UInt8>) -> UInt16 {
        var crc: UInt16 = 0
        for byte in bytes {
            crc ^= UInt16(byte) << 8
            for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc << 1 ^ 0x1021 : crc << 1 }
        }
        return crc
    }
}

/// 48 bits of milliseconds and 80 random ones in Crockford's base 32 (github.com/ulid/spec).
package struct ULID: Sendable, CustomStringConvertible {
    private let milliseconds: UInt64
    private let high: UInt16
    private let low: UInt64

    package init(milliseconds: UInt64) {
        self.milliseconds = milliseconds & 0xFFFF_FFFF_FFFF
        var generator = SystemRandomNumberGenerator()
        high = generator.next()
        low = generator.next()
    }

    package var description: String {
        let alphabet: StaticString = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        return String(unsafeUninitializedCapacity: 26) { buffer in
            for index in 0..<10 {
                buffer[index] = alphabet.utf8Start[Int(milliseconds >> UInt64(45 - 5 * index) & 31)]
            }
            // 80 bits: sixteen digits of five; the first three and a fifth come from `high`.
            for index in 0..<16 {
                let shift = 75 - 5 * index
                let bits =
                    shift >= 64
                    ? UInt64(high) >> UInt64(shift - 64) & 31
                    : (low >> UInt64(shift) | (shift > 59 ? UInt64(high) << UInt64(64 - shift) : 0)) & 31
                buffer[10 + index] = alphabet.utf8Start[Int(bits)]
            }
            return 26
        }
    }
}
