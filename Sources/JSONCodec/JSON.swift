import Support

/// A JSON value that preserves the order of members and the spelling of numbers.
///
/// A job's `request` is passed on unchanged. Converted to Swift numbers and back, 9007199254740993 or 0.10 would change.
package enum JSON: Sendable, Hashable {
    case null
    case bool(Bool)
    /// The number in its original spelling.
    case number(String)
    case string(String)
    case array([JSON])
    case object(JSONObject)

    /// Rules for duplicate names and for the number of values in a document.
    package enum Rules: Sendable {
        /// For data from clients, Redis and files: duplicate names and more than `maximumValues` values are errors.
        case strict
        /// For responses of upstreams: the last of several members with the same name counts, and the caller limits the bytes.
        case lenient
    }

    /// Maximum number of members and elements of a document under the strict rules, all depths together.
    package static let maximumValues = 50_000

    /// Parses a document of UTF-8 bytes.
    /// - Parameters:
    ///   - maximumDepth: maximum nesting of arrays and objects.
    ///   - rules: the rules for duplicate names and the number of values.
    /// - Throws: `JSONError` with the reason and the offset.
    package init(parsing bytes: some Sequence<UInt8>, maximumDepth: Int = 64, rules: Rules = .strict) throws(JSONError) {
        var values = 0
        try self.init(parsing: bytes, maximumDepth: maximumDepth, rules: rules, values: &values)
    }

    /// Parses a document as `init(parsing:maximumDepth:rules:)` and counts its members and elements, which take most of the time.
    /// - Parameter values: set to their number up to the end or the error; under the lenient rules to 0.
    package init(
        parsing bytes: some Sequence<UInt8>, maximumDepth: Int = 64, rules: Rules = .strict, values: inout Int
    ) throws(JSONError) {
        let copy = ContiguousArray(bytes)
        var scanner = JSONScanner(copy.span, maximumDepth: maximumDepth, rules: rules)
        defer { values = scanner.countedValues }
        self = try scanner.value()
        try scanner.finish()
    }

    /// Parses a document.
    package init(parsing text: String, maximumDepth: Int = 64, rules: Rules = .strict) throws(JSONError) {
        try self.init(parsing: text.utf8, maximumDepth: maximumDepth, rules: rules)
    }

    package static func integer(_ value: some BinaryInteger) -> JSON { .number(String(value)) }

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSON]? { if case .array(let value) = self { value } else { nil } }
    package var object: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package var double: Double? { if case .number(let text) = self { Double(text) } else { nil } }
    package var isNull: Bool { if case .null = self { true } else { false } }
    /// The value of a whole number in the range of `Int`; `1.0` and `1e3` count as whole. Nil for other values.
    package var integer: Int? {
        guard case .number(let text) = self else { return nil }
        return Int(text) ?? Double(text).flatMap { Int(exactly: $0) }
    }

    /// The value of a whole number, clamped to `0...Int.maximumExact`. Nil for other values.
    package var count: Int? {
        guard case .number(let text) = self else { return nil }
        if let value = Int(text) { return value.boundedCount }
        return Double(text).flatMap { $0 == $0.rounded() ? Int(bounding: $0).boundedCount : nil }
    }

    package subscript(_ name: String) -> JSON? { object?[name] }
    package subscript(_ index: Int) -> JSON? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    /// The document without white space, as a string.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The document without white space, as UTF-8.
    package var bytes: [UInt8] {
        var out: [UInt8] = []
        append(to: &out)
        return out
    }

    /// Appends the document without white space.
    package func append(to out: inout [UInt8]) {
        switch self {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: value ? "true".utf8 : "false".utf8)
        case .number(let text): out.append(contentsOf: text.utf8)
        case .string(let text): out.appendJSONString(text)
        case .array(let elements):
            out.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                element.append(to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .object(let object):
            out.append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                out.appendJSONString(member.name)
                out.append(UInt8(ascii: ":"))
                member.value.append(to: &out)
            }
            out.append(UInt8(ascii: "}"))
        }
    }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral,
    ExpressibleByDictionaryLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSON...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSON)...) {
        self = .object(JSONObject(elements.map { JSONObject.Member(name: $0.0, value: $0.1) }))
    }
}

extension JSONScanner {
    /// Reads any value as a tree.
    package mutating func value() throws(JSONError) -> JSON {
        switch peek() {
        case UInt8(ascii: "{"):
            return .object(rules == .strict ? try uniqueMembers() : try allMembers())
        case UInt8(ascii: "["):
            var elements: [JSON] = []
            try array { (scanner) throws(JSONError) in
                try scanner.countValue()
                elements.append(try scanner.value())
            }
            return .array(elements)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"), UInt8(ascii: "f"): return .bool(try bool())
        case UInt8(ascii: "n"):
            guard try null() else { return .null }
            return .null
        case nil: throw JSONError("the text ends where a value was expected", at: offset)
        default: return .number(try number())
        }
    }

    private mutating func uniqueMembers() throws(JSONError) -> JSONObject {
        var members = JSONObject()
        try object { (key, scanner) throws(JSONError) in
            try scanner.countValue()
            let position = scanner.offset
            let name = try key.text(at: position)
            let value = try scanner.value()
            guard members.append(JSONObject.Member(name: name, value: value), hash: members.needsHash ? key.hash() : 0) else {
                throw JSONError("the name \"\(name.cut(toBytes: 100))\" occurs twice", at: position)
            }
        }
        return members
    }

    private mutating func allMembers() throws(JSONError) -> JSONObject {
        var members: [JSONObject.Member] = []
        try object { (key, scanner) throws(JSONError) in
            let name = try key.text(at: scanner.offset)
            members.append(JSONObject.Member(name: name, value: try scanner.value()))
        }
        return JSONObject(members)
    }
}

extension JSONKey {
    fileprivate func text(at offset: Int) throws(JSONError) -> String {
        guard let string else { throw JSONError("a member's name is not UTF-8", at: offset) }
        return string
    }
}
