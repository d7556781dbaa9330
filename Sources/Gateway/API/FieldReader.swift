import JSONCodec

/// Reads the members of a request's JSON object by name, and refuses the ones that were not read. Null counts as absent.
struct FieldReader {
    private let object: JSONObject
    /// The object's place in the body with a dot at its end, as used in error messages; empty for the body itself.
    private let path: String
    private var names: Set<String> = []

    /// - Throws: 400 when the value is not an object.
    init(_ json: JSON, at path: String = "") throws(HTTPErrorResponse) {
        guard let object = json.object else {
            throw HTTPErrorResponse.invalid(path.isEmpty ? "the body is not a JSON object" : "\"\(path)\" must be an object")
        }
        self.object = object
        self.path = path.isEmpty ? "" : path + "."
    }

    /// The full name of a member, for error messages.
    func name(of member: String) -> String { path + member }

    /// The value of a member; nil when it is absent or null.
    mutating func value(_ name: String) -> JSON? {
        names.insert(name)
        guard let value = object[name], !value.isNull else { return nil }
        return value
    }

    /// The value of a member, null included; nil when it is absent.
    mutating func presentOrNull(_ name: String) -> JSON? {
        names.insert(name)
        return object[name]
    }

    mutating func string(_ name: String) throws(HTTPErrorResponse) -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value.string else { throw invalid(name, "a string") }
        return text
    }

    mutating func requiredString(_ name: String) throws(HTTPErrorResponse) -> String {
        guard let text = try string(name), !text.isEmpty else { throw invalid(name, "a string that is not empty") }
        return text
    }

    mutating func flag(_ name: String) throws(HTTPErrorResponse) -> Bool? {
        guard let value = value(name) else { return nil }
        guard let flag = value.bool else { throw invalid(name, "true or false") }
        return flag
    }

    mutating func positiveInteger(_ name: String) throws(HTTPErrorResponse) -> Int? {
        guard let value = value(name) else { return nil }
        guard let number = value.integer, number > 0 else { throw invalid(name, "a whole number above 0") }
        return number
    }

    /// A number in its original spelling.
    mutating func number(_ name: String) throws(HTTPErrorResponse) -> JSON? {
        guard let value = value(name) else { return nil }
        guard value.double != nil else { throw invalid(name, "a number") }
        return value
    }

    mutating func array(_ name: String) throws(HTTPErrorResponse) -> [JSON]? {
        guard let value = value(name) else { return nil }
        guard let array = value.array else { throw invalid(name, "an array") }
        return array
    }

    mutating func object(_ name: String) throws(HTTPErrorResponse) -> FieldReader? {
        guard let value = value(name) else { return nil }
        return try FieldReader(value, at: self.name(of: name))
    }

    /// Marks members as read whose value changes nothing in the answer.
    mutating func ignore(_ names: String...) { self.names.formUnion(names) }

    /// - Throws: 400 with the name of the first member that was not read.
    func finish() throws(HTTPErrorResponse) { try requireOnly(names) }

    /// - Throws: 400 with the name of the first member that is not among `names`.
    func requireOnly(_ names: some Collection<String>) throws(HTTPErrorResponse) {
        for member in object.members where !member.value.isNull && !names.contains(member.name) { throw unsupported(member.name) }
    }

    func invalid(_ name: String, _ expected: String) -> HTTPErrorResponse {
        HTTPErrorResponse.invalid("\"\(path)\(name.prefix(100))\" must be \(expected)")
    }

    func unsupported(_ name: String) -> HTTPErrorResponse { HTTPErrorResponse.notCarried(path + name.prefix(100)) }
}
