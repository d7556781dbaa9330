import TestSupport

/// Random choices for `LegalStream`.
struct LegalRandom {
    private var generator: SplitMix64

    init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }
    /// True once in `count` times.
    mutating func chance(of count: Int) -> Bool { number(1...count) == 1 }
    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[number(0...elements.count - 1)] }

    /// Text that is not empty, with characters of one to four bytes, and ones that JSON escapes.
    mutating func words() -> String {
        (0..<number(1...12)).map { _ in
            pick(["a", "Hello ", "你", "😀", "é", "\"", "\\", "\n", "\u{0}", "data: ", "👩‍👩‍👧", "[DONE]", "\u{FFFD}"])
        }
        .joined()
    }

    /// A JSON object that is not empty.
    mutating func arguments() -> String {
        let value = pick(["1", "\"x\"", "{\"b\":[1,{}]}", "\"北京 😀\"", "[]", "\"}{\\\"\"", "null", "\"\\ud83d\\ude00\"", "-1.5e3"])
        return pick(["{\"a\":\(value)}", "{ \"a\" : \(value) }", "{\"a\":\(value),\"b\":{}}"])
    }

    /// The text as JSON strings in several pieces, which may cut surrogate pairs.
    mutating func pieces(of text: String) -> [String] {
        var rest = Array(text.utf16)[...]
        let longest = pick([1, 3, 100])
        var pieces: [String] = []
        while !rest.isEmpty {
            let count = min(number(1...longest), rest.count)
            pieces.append(quoted(Array(rest.prefix(count))))
            rest = rest.dropFirst(count)
        }
        return pieces
    }

    /// A JSON string, in which some characters are escaped.
    mutating func quoted(_ units: [UInt16]) -> String {
        var text = "\""
        var position = 0
        while position < units.count {
            let unit = units[position]
            let isPair = unit & 0xFC00 == 0xD800 && position + 1 < units.count && units[position + 1] & 0xFC00 == 0xDC00
            let isHalf = unit & 0xF800 == 0xD800 && !isPair
            let mustEscape = unit < 0x20 || unit == 0x22 || unit == 0x5C || isHalf
            let count = isPair ? 2 : 1
            if mustEscape || chance(of: 6) {
                for unit in units[position..<position + count] {
                    let digits = String(unit, radix: 16, uppercase: chance(of: 2))
                    text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                }
            } else {
                text += String(decoding: units[position..<position + count], as: UTF16.self)
            }
            position += count
        }
        return text + "\""
    }
}

extension [String] {
    /// JSON strings joined to one.
    var joinedJSON: String { "\"" + map { $0.dropFirst().dropLast() }.joined() + "\"" }
}
