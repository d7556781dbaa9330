import Support

/// Writes JSON directly into bytes, for hot paths that do not build a tree.
extension [UInt8] {
    /// Appends a quoted string. Only the characters required by RFC 8259, section 7 are escaped; U+2028 and similar ones are not.
    package mutating func appendJSONString(_ text: String) {
        append(UInt8(ascii: "\""))
        let utf8 = text.utf8Span.span
        var clean = 0
        for index in 0..<utf8.count {
            let byte = utf8[index]
            guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
            append(copying: utf8.extracting(clean..<index))
            clean = index + 1
            appendEscape(of: byte)
        }
        append(copying: utf8.extracting(clean..<utf8.count))
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
            // Only control characters below 0x20 come here.
            append(contentsOf: "u00".utf8)
            append(0x30 + byte >> 4)
            append(byte & 15 < 10 ? 0x30 + byte & 15 : 0x57 + byte & 15)
        }
    }

    /// Appends `"name":"value"`, with a comma before it unless it is the first member of its object.
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

    /// Appends `"name":`, with a comma before it unless it is the first member. The name must need no escapes.
    package mutating func appendJSONName(_ name: StaticString) {
        if last != UInt8(ascii: "{") { append(UInt8(ascii: ",")) }
        append(UInt8(ascii: "\""))
        append(copying: name)
        append(UInt8(ascii: "\""))
        append(UInt8(ascii: ":"))
    }
}
