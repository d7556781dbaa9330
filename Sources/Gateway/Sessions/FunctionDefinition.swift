import Contract
import JSONCodec

/// One entry of `function_calling`, in the client's form for the session and in OpenAI's form for jobs. Converted once.
struct FunctionDefinition: Sendable, Hashable {
    /// Maximum functions of a session, and of one message.
    static let maximumCount = 128
    /// Maximum parameters of a function: entries of a list or members of a schema's `properties`.
    static let maximumParameters = 128

    let name: String
    /// The definition as received from the client.
    let source: JSONObject
    /// The definition as an element of OpenAI's `tools`.
    let tool: JSON

    /// - Throws: MALFORMED_PAYLOAD.
    init(_ json: JSON) throws(ProtocolError) {
        guard let source = json.object, let name = source["name"]?.string, !name.isEmpty else {
            throw .malformed("an entry of \"function_calling\" must be an object with a \"name\"")
        }
        _ = try name.bounded("function_calling.name", NameLimit.function)
        let description = source.present("description")
        if let description, description.string == nil {
            throw .malformed("the description of the function \"\(name)\" is not a string")
        }
        var function = JSONObject()
        function["name"] = .string(name)
        function["description"] = description
        switch source.present("parameters") {
        case nil: break
        case .object(let schema):
            let count = schema["properties"]?.object?.members.count ?? 0
            guard count <= Self.maximumParameters else { throw Self.tooMany(name) }
            function["parameters"] = .object(schema)
        case .array(let parameters):
            guard parameters.count <= Self.maximumParameters else { throw Self.tooMany(name) }
            function["parameters"] = try Self.schema(parameters, of: name)
        default: throw .malformed("the parameters of the function \"\(name)\" are neither a JSON schema nor a list")
        }
        self.name = name
        self.source = source
        tool = ["type": "function", "function": .object(function)]
    }

    private static func tooMany(_ name: String) -> ProtocolError {
        .malformed("the function \"\(name)\" has more than \(maximumParameters) parameters")
    }

    /// Parses the value of `function_calling`.
    /// - Throws: MALFORMED_PAYLOAD.
    static func list(_ json: JSON) throws(ProtocolError) -> [FunctionDefinition] {
        guard let elements = json.array else { throw .malformed("\"function_calling\" must be an array") }
        guard elements.count <= maximumCount else { throw .malformed("\"function_calling\" has more than \(maximumCount) entries") }
        var list: [FunctionDefinition] = []
        for element in elements { list.append(try FunctionDefinition(element)) }
        return list
    }

    /// Converts a list `[{name, type, description?, required?}]` to a JSON schema. A repeated name replaces the earlier definition and
    /// keeps its position.
    private static func schema(_ list: [JSON], of function: String) throws(ProtocolError) -> JSON {
        var properties: [JSONObject.Member] = []
        var indexes: [String: Int] = [:]
        var required: [JSON] = []
        for parameter in list {
            guard let source = parameter.object, let name = source["name"]?.string, !name.isEmpty else {
                throw .malformed("a parameter of the function \"\(function)\" has no name")
            }
            var property = JSONObject(source.members.filter { $0.name != "name" && $0.name != "required" && $0.name != "type" })
            property["type"] = .string(type(source["type"]?.string ?? "string"))
            if let index = indexes[name] {
                properties[index].value = .object(property)
            } else {
                indexes[name] = properties.count
                properties.append(.init(name: name, value: .object(property)))
            }
            if source["required"]?.bool == true { required.append(.string(name)) }
        }
        var schema = JSONObject()
        schema["type"] = "object"
        schema["properties"] = .object(JSONObject(properties))
        if !required.isEmpty { schema["required"] = .array(required) }
        return .object(schema)
    }

    /// The JSON schema name of a type that clients may name as in their programming language.
    private static func type(_ name: String) -> String {
        switch name.lowercased() {
        case "str", "text", "char": "string"
        case "int", "long", "int32", "int64": "integer"
        case "float", "double", "decimal": "number"
        case "bool": "boolean"
        case "list": "array"
        case "dict", "map", "json": "object"
        default: name.lowercased()
        }
    }
}
