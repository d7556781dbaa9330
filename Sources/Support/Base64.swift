/// Base64 encoding (RFC 4648, section 4), used for audio samples.
package enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    /// The value of each byte; 255 for bytes outside the alphabet.
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 255, count: 256)
        for (value, byte) in alphabet.enumerated() { values[Int(byte)] = UInt8(value) }
        return values
    }()

    /// The padded encoding of the bytes.
    package static func encode(_ bytes: some Collection<UInt8>) -> String {
        var out: [UInt8] = []
        out.reserveCapacity((bytes.count + 2) / 3 * 4)
        var group: UInt32 = 0
        var held = 0
        for byte in bytes {
            group = group << 8 | UInt32(byte)
            held += 1
            guard held == 3 else { continue }
            for shift in [18, 12, 6, 0] as [UInt32] { out.append(alphabet[Int(group >> shift & 63)]) }
            (group, held) = (0, 0)
        }
        if held == 1 { out += [alphabet[Int(group >> 2 & 63)], alphabet[Int(group << 4 & 63)], 0x3D, 0x3D] }
        if held == 2 { out += [alphabet[Int(group >> 10 & 63)], alphabet[Int(group >> 4 & 63)], alphabet[Int(group << 2 & 63)], 0x3D] }
        return String(decoding: out, as: UTF8.self)
    }

    /// Appends the decoded bytes. Padding may be missing.
    /// - Returns: false for invalid Base64; `out` may then contain some decoded bytes.
    package static func decode(_ text: String, into out: inout [UInt8]) -> Bool {
        var group: UInt32 = 0
        var held = 0
        var padding = 0
        for byte in text.utf8 {
            if byte == 0x3D {
                padding += 1
                continue
            }
            let value = values[Int(byte)]
            guard value < 64, padding == 0 else { return false }
            group = group << 6 | UInt32(value)
            held += 1
            guard held == 4 else { continue }
            out.append(UInt8(truncatingIfNeeded: group >> 16))
            out.append(UInt8(truncatingIfNeeded: group >> 8))
            out.append(UInt8(truncatingIfNeeded: group))
            (group, held) = (0, 0)
        }
        if held == 2 { out.append(UInt8(truncatingIfNeeded: group >> 4)) }
        if held == 3 { out += [UInt8(truncatingIfNeeded: group >> 10), UInt8(truncatingIfNeeded: group >> 2)] }
        return held != 1 && padding <= 2
    }
}
