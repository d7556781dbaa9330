/// A JSON value that keeps what a codec would lose: the order of members and the spelling of numbers.
///
/// A job's `request` is passed on as it is; decoded to Swift numbers and back, 9007199254740993 or 0.10 would come out as something else.
package enum JSON: Sendable, Hashable {
    case null
    case bool(Bool)
    /// The number as it was spelled.
    case number(String)
    case string(String)
    case array([JSON])
    case object(JSONObject)

    /// - Parameter maximumDepth: how many arrays and objects may stand inside one another.
    package init(parsing bytes: some Sequence<UInt8>, maximumDepth: Int = 64) throws(JSONError) {
        let copy = ContiguousArray(bytes)
        // `withUnsafeBufferPointer` rethrows untyped in a typed context, hence the detour by Result.
        let result = copy.withUnsafeBufferPointer { buffer in
            Result { () throws(JSONError) -> JSON in
                var scanner = JSONScanner(buffer, maximumDepth: maximumDepth)
                let value = try scanner.value()
                try scanner.finish()
                return value
            }
        }
        self = try result.get()
    }

    package init(parsing text: String, maximumDepth: Int = 64) throws(JSONError) {
        try self.init(parsing: text.utf8, maximumDepth: maximumDepth)
    }

    package static func integer(_ value: some BinaryInteger) -> JSON { .number(String(value)) }

    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var array: [JSON]? { if case .array(let value) = self { value } else { nil } }
    package var object: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package var double: Double? { if case .number(let text) = self { Double(text) } else { nil } }
    package var isNull: Bool { self == .null }
    /// A whole number that fits; `1.0` and `1e3` count as whole.
    package var integer: Int? {
        guard case .number(let text) = self else { return nil }
        return Int(text) ?? Double(text).flatMap { Int(exactly: $0) }
    }

    package subscript(_ name: String) -> JSON? { object?[name] }
    package subscript(_ index: Int) -> JSON? {
        guard let array, array.indices.contains(index) else { return nil }
        return array[index]
    }

    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The value written without white space.
    package var bytes: [UInt8] {
        var out: [UInt8] = []
        append(to: &out)
        return out
    }

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

/// Members in the order in which they were written. Of a name that stands twice the last one counts, as in most parsers.
package struct JSONObject: Sendable, Hashable {
    package struct Member: Sendable, Hashable {
        package var name: String
        package var value: JSON

        package init(name: String, value: JSON) {
            self.name = name
            self.value = value
        }
    }

    package private(set) var members: [Member]

    package init(_ members: [Member] = []) { self.members = members }

    package var names: [String] { members.map(\.name) }
    package var isEmpty: Bool { members.isEmpty }

    package subscript(_ name: String) -> JSON? {
        get { members.last { $0.name == name }?.value }
        set {
            guard let newValue else { return members.removeAll { $0.name == name } }
            if let index = members.lastIndex(where: { $0.name == name }) {
                members[index].value = newValue
            } else {
                members.append(Member(name: name, value: newValue))
            }
        }
    }
}

extension JSONScanner {
    /// Any value as a tree.
    package mutating func value() throws(JSONError) -> JSON {
        switch peek() {
        case UInt8(ascii: "{"):
            var members: [JSONObject.Member] = []
            try object { (key, scanner) throws(JSONError) in
                guard let name = key.string else { throw JSONError("a member's name is not UTF-8", at: scanner.offset) }
                members.append(JSONObject.Member(name: name, value: try scanner.value()))
            }
            return .object(JSONObject(members))
        case UInt8(ascii: "["):
            var elements: [JSON] = []
            try array { (scanner) throws(JSONError) in elements.append(try scanner.value()) }
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
}
