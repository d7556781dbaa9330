import Support

/// The reason and the position of a JSON parsing error.
package struct JSONError: Error, Equatable, CustomStringConvertible {
    /// The error in words that may be shown to the sender of the text.
    package let reason: String
    /// The position of the error in bytes from the start of the text.
    package let offset: Int

    package init(_ reason: String, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String { "\(reason) at byte \(offset)" }
}

/// Reads JSON (RFC 8259) from bytes without building a tree: one pass, allocating only the strings that are read.
///
/// For hot paths: a token's chunk takes less than a microsecond here and several with `JSONDecoder`. Every reading method advances past the
/// value. It throws `JSONError` for invalid JSON, nesting deeper than `maximumDepth` or a value of another kind.
package struct JSONScanner: ~Escapable {
    let bytes: Span<UInt8>
    private var position = 0
    private var depth: Int
    let rules: JSON.Rules
    private var valuesLeft: Int

    /// - Parameters:
    ///   - bytes: the text; the scanner cannot outlive it.
    ///   - maximumDepth: maximum nesting of arrays and objects.
    ///   - rules: the rules that `value()` applies; other methods do not apply them.
    @_lifetime(copy bytes)
    package init(_ bytes: Span<UInt8>, maximumDepth: Int = 64, rules: JSON.Rules = .lenient) {
        self.bytes = bytes
        depth = maximumDepth
        self.rules = rules
        valuesLeft = rules == .strict ? JSON.maximumValues : .max
    }

    /// The current position in bytes.
    package var offset: Int { position }

    /// The next byte that is not white space, without consuming it; nil at the end.
    package mutating func peek() -> UInt8? {
        while position < bytes.count {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            position += 1
        }
        return nil
    }

    /// Verifies that only white space follows, and throws otherwise.
    package mutating func finish() throws(JSONError) {
        guard peek() == nil else { throw JSONError("unexpected text after the value", at: position) }
    }

    /// Reads an object and calls `body` for each member; `body` must consume the value, for example by `skip()`.
    package mutating func object(_ body: (JSONKey, inout JSONScanner) throws(JSONError) -> Void) throws(JSONError) {
        try expect(UInt8(ascii: "{"), "an object")
        try enter()
        if peek() == UInt8(ascii: "}") {
            position += 1
            depth += 1
            return
        }
        while true {
            guard peek() == UInt8(ascii: "\"") else { throw JSONError("a member's name was expected", at: position) }
            let key = try key()
            try expect(UInt8(ascii: ":"), "a colon")
            try body(key, &self)
            guard let next = peek() else { throw JSONError("the text ends inside an object", at: position) }
            position += 1
            if next == UInt8(ascii: "}") { break }
            guard next == UInt8(ascii: ",") else { throw JSONError("a comma or the object's end was expected", at: position - 1) }
        }
        depth += 1
    }

    /// Reads an array and calls `body` for each element; `body` must consume the element.
    package mutating func array(_ body: (inout JSONScanner) throws(JSONError) -> Void) throws(JSONError) {
        try expect(UInt8(ascii: "["), "an array")
        try enter()
        if peek() == UInt8(ascii: "]") {
            position += 1
            depth += 1
            return
        }
        while true {
            try body(&self)
            guard let next = peek() else { throw JSONError("the text ends inside an array", at: position) }
            position += 1
            if next == UInt8(ascii: "]") { break }
            guard next == UInt8(ascii: ",") else { throw JSONError("a comma or the array's end was expected", at: position - 1) }
        }
        depth += 1
    }

    /// Reads a string; nil for `null`.
    package mutating func optionalString() throws(JSONError) -> String? {
        try null() ? nil : try string()
    }

    /// Reads a whole number; nil for `null`. A number with a fraction or an exponent is accepted when its value is whole.
    package mutating func optionalInteger() throws(JSONError) -> Int? {
        try null() ? nil : try integer()
    }

    /// Reads a whole number in the range of `Int`. A number with a fraction or an exponent is accepted when its value is whole.
    package mutating func integer() throws(JSONError) -> Int {
        let start = position
        let text = try number()
        if let value = Int(text) { return value }
        if let value = Double(text), let whole = Int(exactly: value) { return whole }
        throw JSONError("a whole number was expected", at: start)
    }

    /// Reads `true` or `false`.
    package mutating func bool() throws(JSONError) -> Bool {
        switch peek() {
        case UInt8(ascii: "t"):
            try word("true")
            return true
        case UInt8(ascii: "f"):
            try word("false")
            return false
        default: throw JSONError("true or false was expected", at: position)
        }
    }

    /// Consumes `null` and returns true; returns false and consumes nothing for other values.
    package mutating func null() throws(JSONError) -> Bool {
        guard peek() == UInt8(ascii: "n") else { return false }
        try word("null")
        return true
    }

    /// Reads a number and returns its spelling.
    package mutating func number() throws(JSONError) -> String {
        _ = peek()
        let start = position
        try skipNumber()
        return String(decoding: bytes.extracting(start..<position))
    }

    /// Reads a string and decodes its escapes.
    package mutating func string() throws(JSONError) -> String {
        guard peek() == UInt8(ascii: "\"") else { throw JSONError("a string was expected", at: position) }
        let (start, end, escaped) = try stringBounds()
        let raw = bytes.extracting(start..<end)
        if escaped { return try unescape(raw, at: start) }
        guard let text = String(validating: raw) else { throw JSONError("a string is not UTF-8", at: start) }
        return text
    }

    /// Skips any value and checks its syntax, except escapes and UTF-8 in strings.
    package mutating func skip() throws(JSONError) {
        switch peek() {
        case UInt8(ascii: "{"): try object { (_, scanner) throws(JSONError) in try scanner.skip() }
        case UInt8(ascii: "["): try array { (scanner) throws(JSONError) in try scanner.skip() }
        case UInt8(ascii: "\""): _ = try stringBounds()
        case UInt8(ascii: "t"): try word("true")
        case UInt8(ascii: "f"): try word("false")
        case UInt8(ascii: "n"): try word("null")
        case nil: throw JSONError("the text ends where a value was expected", at: position)
        default: try skipNumber()
        }
    }

    /// Skips any value and checks its syntax completely, including escapes and UTF-8 in strings.
    package mutating func validate() throws(JSONError) {
        switch peek() {
        case UInt8(ascii: "{"): try object { (_, scanner) throws(JSONError) in try scanner.validate() }
        case UInt8(ascii: "["): try array { (scanner) throws(JSONError) in try scanner.validate() }
        case UInt8(ascii: "\""): _ = try string()
        default: try skip()
        }
    }

    /// Reads any value and returns its unchanged text. Invalid UTF-8 becomes U+FFFD.
    package mutating func raw() throws(JSONError) -> String {
        _ = peek()
        let start = position
        try skip()
        return String(decoding: bytes.extracting(start..<position))
    }

    /// Reads a whole number and clamps it to `0...Int.maximumExact`. For counts, durations and positions from outside, where a wrong value
    /// must not make the whole document invalid.
    package mutating func count() throws(JSONError) -> Int {
        let start = position
        let text = try number()
        if let value = Int(text) { return value.boundedCount }
        guard let value = Double(text), value == value.rounded() else { throw JSONError("a whole number was expected", at: start) }
        return Int(bounding: value).boundedCount
    }

    /// Reads a whole number as `count()` does; nil for `null`.
    package mutating func optionalCount() throws(JSONError) -> Int? {
        try null() ? nil : try count()
    }

    /// The number of members and elements of the trees that were read; 0 under the lenient rules.
    var countedValues: Int { rules == .strict ? JSON.maximumValues - valuesLeft : 0 }

    /// Counts a member or an element of a tree, and throws when there are too many.
    mutating func countValue() throws(JSONError) {
        guard valuesLeft > 0 else { throw JSONError("there are more than \(JSON.maximumValues) members and elements", at: position) }
        valuesLeft -= 1
    }

    // MARK: Parts

    private mutating func enter() throws(JSONError) {
        depth -= 1
        guard depth >= 0 else { throw JSONError("nested too deeply", at: position) }
    }

    private mutating func expect(_ byte: UInt8, _ what: String) throws(JSONError) {
        guard peek() == byte else { throw JSONError("\(what) was expected", at: position) }
        position += 1
    }

    private mutating func word(_ word: StaticString) throws(JSONError) {
        guard bytes.extracting(droppingFirst: position).starts(with: word) else { throw JSONError("an unknown word", at: position) }
        position += word.utf8CodeUnitCount
    }

    @_lifetime(copy self)
    private mutating func key() throws(JSONError) -> JSONKey {
        let (start, end, escaped) = try stringBounds()
        let raw = bytes.extracting(start..<end)
        return JSONKey(raw, unescaped: escaped ? try unescape(raw, at: start) : nil)
    }

    /// Skips a string, starting at its opening quote, and returns the range between the quotes.
    mutating func stringBounds() throws(JSONError) -> (start: Int, end: Int, escaped: Bool) {
        let start = position + 1
        var index = start
        var escaped = false
        while index < bytes.count {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\"") {
                position = index + 1
                return (start, index, escaped)
            }
            if byte == UInt8(ascii: "\\") {
                escaped = true
                index += 1
            } else if byte < 0x20 {
                throw JSONError("a control character inside a string", at: index)
            }
            index += 1
        }
        throw JSONError("the text ends inside a string", at: bytes.count)
    }

    private mutating func skipNumber() throws(JSONError) {
        let start = position
        func digits(_ position: inout Int) -> Int {
            let first = position
            while position < bytes.count, bytes[position] &- 0x30 < 10 { position += 1 }
            return position - first
        }
        if position < bytes.count, bytes[position] == UInt8(ascii: "-") { position += 1 }
        let first = position
        let whole = digits(&position)
        guard whole > 0, whole == 1 || bytes[first] != UInt8(ascii: "0") else { throw JSONError("a value was expected", at: start) }
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            position += 1
            guard digits(&position) > 0 else { throw JSONError("a digit was expected", at: position) }
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            position += 1
            if position < bytes.count, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") { position += 1 }
            guard digits(&position) > 0 else { throw JSONError("a digit was expected", at: position) }
        }
    }

    /// Decodes the escapes of a string.
    ///
    /// A `\u` escape of an unpaired surrogate becomes U+FFFD. Models may split their output inside a surrogate pair, and the rest of the
    /// answer must remain readable.
    func unescape(_ raw: Span<UInt8>, at start: Int) throws(JSONError) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(raw.count)
        var index = 0
        func hex(_ at: Int) throws(JSONError) -> UInt32 {
            guard at + 4 <= raw.count else { throw JSONError("a \\u escape is cut short", at: start + at) }
            var value: UInt32 = 0
            for index in at..<at + 4 {
                let digit = raw[index]
                switch digit {
                case 0x30...0x39: value = value << 4 | UInt32(digit - 0x30)
                case 0x41...0x46: value = value << 4 | UInt32(digit - 0x41 + 10)
                case 0x61...0x66: value = value << 4 | UInt32(digit - 0x61 + 10)
                default: throw JSONError("a \\u escape needs four hexadecimal digits", at: start + at)
                }
            }
            return value
        }
        while index < raw.count {
            let byte = raw[index]
            guard byte == UInt8(ascii: "\\") else {
                out.append(byte)
                index += 1
                continue
            }
            index += 2
            switch raw[index - 1] {
            case UInt8(ascii: "\""): out.append(0x22)
            case UInt8(ascii: "\\"): out.append(0x5C)
            case UInt8(ascii: "/"): out.append(0x2F)
            case UInt8(ascii: "b"): out.append(0x08)
            case UInt8(ascii: "f"): out.append(0x0C)
            case UInt8(ascii: "n"): out.append(0x0A)
            case UInt8(ascii: "r"): out.append(0x0D)
            case UInt8(ascii: "t"): out.append(0x09)
            case UInt8(ascii: "u"):
                var scalar = try hex(index)
                index += 4
                if scalar & 0xFC00 == 0xD800, index + 6 <= raw.count, raw[index] == UInt8(ascii: "\\"), raw[index + 1] == UInt8(ascii: "u")
                {
                    let low = try hex(index + 2)
                    if low & 0xFC00 == 0xDC00 {
                        scalar = 0x10000 + (scalar & 0x3FF) << 10 + (low & 0x3FF)
                        index += 6
                    }
                }
                out.append(contentsOf: UTF8.encode(Unicode.Scalar(scalar) ?? "\u{FFFD}") ?? UTF8.encodedReplacementCharacter)
            default: throw JSONError("an unknown escape", at: start + index - 2)
            }
        }
        guard let text = String(validating: out.span) else { throw JSONError("a string is not UTF-8", at: start) }
        return text
    }
}
