/// Writing JSON straight into bytes: what stands on the hot path is not built as a tree first.
extension [UInt8] {
    /// The string with its quotes. Only what RFC 8259 section 7 demands is escaped; U+2028 and the like pass as they are.
    package mutating func appendJSONString(_ text: String) {
        append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { utf8 in
            var clean = 0
            for index in 0..<utf8.count {
                let byte = utf8[index]
                guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
                append(contentsOf: utf8[clean..<index])
                clean = index + 1
                appendEscape(of: byte)
            }
            append(contentsOf: utf8[clean...])
        }
        append(UInt8(ascii: "\""))
    }

    private mutating func appendEscape(of byte: UInt8) {
        append(UInt8(ascii: "\\"))
        switch byte {
        case 0x22, 0x5C: append(byte)
        case 0x0A: append(UInt8(ascii: "n"))
        case 0x0D: append(UInt8(ascii: "r"))
        case 0x09: append(UInt8(ascii: "t"))
        default:
            let digits: StaticString = "0123456789abcdef"
            append(contentsOf: "u00".utf8)
            append(digits.utf8Start[Int(byte >> 4)])
            append(digits.utf8Start[Int(byte & 15)])
        }
    }

    /// `"name":"value"`, with a comma before it unless it comes first in its object.
    package mutating func appendJSONMember(_ name: StaticString, _ value: String) {
        appendJSONName(name)
        appendJSONString(value)
    }

    package mutating func appendJSONMember(_ name: StaticString, _ value: Int) {
        appendJSONName(name)
        appendDecimal(value)
    }

    package mutating func appendJSONMember(_ name: StaticString, _ value: Bool) {
        appendJSONName(name)
        append(contentsOf: value ? "true".utf8 : "false".utf8)
    }

    package mutating func appendJSONName(_ name: StaticString) {
        if last != UInt8(ascii: "{") { append(UInt8(ascii: ",")) }
        append(UInt8(ascii: "\""))
        append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        append(UInt8(ascii: "\""))
        append(UInt8(ascii: ":"))
    }

    package mutating func appendDecimal(_ value: Int) {
        guard value >= 0 else { return append(contentsOf: String(value).utf8) }
        let start = count
        var rest = value
        repeat {
            append(UInt8(truncatingIfNeeded: 0x30 + rest % 10))
            rest /= 10
        } while rest > 0
        self[start...].reverse()
    }
}
