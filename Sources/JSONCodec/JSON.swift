import Support

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

    /// How the names and the number of a document's values are judged.
    package enum Rules: Sendable {
        /// For what clients, Redis and files hold: a name occurs once in an object, and there are at most `maximumValues` values.
        case strict
        /// For what upstreams answer: of members with the same name the last one counts, and the caller bounds the bytes.
        case lenient
    }

    /// Members and elements of one document under the strict rules, all depths together.
    package static let maximumValues = 100_000

    /// - Parameters:
    ///   - maximumDepth: how many arrays and objects may be nested.
    ///   - rules: whether a name that occurs twice in an object, or more than `maximumValues` values, are errors.
    package init(parsing bytes: some Sequence<UInt8>, maximumDepth: Int = 64, rules: Rules = .strict) throws(JSONError) {
        let copy = ContiguousArray(bytes)
        // `withUnsafeBufferPointer` rethrows untyped in a typed context, hence the detour by Result.
        let result = copy.withUnsafeBufferPointer { buffer in
            Result { () throws(JSONError) -> JSON in
                var scanner = JSONScanner(buffer, maximumDepth: maximumDepth, rules: rules)
                let value = try scanner.value()
                try scanner.finish()
                return value
            }
        }
        self = try result.get()
    }

    package init(parsing text: String, maximumDepth: Int = 64, rules: Rules = .strict) throws(JSONError) {
        try self.init(parsing: text.utf8, maximumDepth: maximumDepth, rules: rules)
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

    /// A whole number in `0...Int.maximumExact`; one outside it becomes the nearest.
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

/// Members in the order in which they were written. Of members with the same name the last one counts, as in most parsers.
///
/// Looking a name up takes constant time, however many members there are.
package struct JSONObject: Sendable, Hashable {
    package struct Member: Sendable, Hashable {
        package var name: String
        package var value: JSON

        package init(name: String, value: JSON) {
            self.name = name
            self.value = value
        }
    }

    /// Up to so many members a search through them is as fast as an index.
    private static let searched = 16

    package private(set) var members: [Member]
    /// The last place of each name in `members`; nil while there are few.
    private var places: [String: Int]?

    package init(_ members: [Member] = []) {
        self.members = members
        index()
    }

    package var names: [String] { members.map(\.name) }
    package var isEmpty: Bool { members.isEmpty }

    package subscript(_ name: String) -> JSON? {
        get { place(of: name).map { members[$0].value } }
        set {
            guard let newValue else {
                guard place(of: name) != nil else { return }
                members.removeAll { $0.name == name }
                return index()
            }
            if let place = place(of: name) { members[place].value = newValue } else { add(Member(name: name, value: newValue)) }
        }
    }

    /// Appends a member of a new name.
    /// - Returns: false, and nothing is changed, when there is a member of this name.
    package mutating func append(_ member: Member) -> Bool {
        guard place(of: member.name) == nil else { return false }
        add(member)
        return true
    }

    private mutating func add(_ member: Member) {
        members.append(member)
        if places != nil { places?[member.name] = members.count - 1 } else if members.count > Self.searched { index() }
    }

    private func place(of name: String) -> Int? {
        if let places { places[name] } else { members.lastIndex { $0.name == name } }
    }

    private mutating func index() {
        guard members.count > Self.searched else { return places = nil }
        places = Dictionary(members.enumerated().map { ($0.element.name, $0.offset) }, uniquingKeysWith: { $1 })
    }

    package static func == (left: JSONObject, right: JSONObject) -> Bool { left.members == right.members }

    package func hash(into hasher: inout Hasher) { hasher.combine(members) }
}

extension JSONScanner {
    /// Any value as a tree.
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
            let (name, place) = (try key.text(at: scanner.offset), scanner.offset)
            guard members.append(JSONObject.Member(name: name, value: try scanner.value())) else {
                throw JSONError("the name \"\(name.cut(toBytes: 100))\" occurs twice", at: place)
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
