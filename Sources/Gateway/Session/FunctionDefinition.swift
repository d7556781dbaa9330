import Contract

/// One entry of `function_calling`: kept as the client gave it, translated to OpenAI's `tools` when a job is made.
struct FunctionDefinition: Sendable, Hashable {
    static let maximumCount = 128

    let name: String
    let source: JSONObject

    init(_ json: JSON) throws(ProtocolError) {
        guard let source = json.object, let name = source["name"]?.string, !name.isEmpty else {
            throw .malformed("an entry of \"function_calling\" must be an object with a \"name\"")
        }
        if let description = source.present("description"), description.string == nil {
            throw .malformed("the description of the function \"\(name.prefix(100))\" is not a string")
        }
        switch source.present("parameters") {
        case nil, .object: break
        case .array(let parameters):
            guard parameters.allSatisfy({ $0["name"]?.string?.isEmpty == false }) else {
                throw .malformed("a parameter of the function \"\(name.prefix(100))\" has no name")
            }
        default: throw .malformed("the parameters of the function \"\(name.prefix(100))\" are neither a JSON schema nor a list")
        }
        self.name = name
        self.source = source
    }

    static func list(_ json: JSON) throws(ProtocolError) -> [FunctionDefinition] {
        guard let elements = json.array else { throw .malformed("\"function_calling\" must be an array") }
        guard elements.count <= maximumCount else { throw .malformed("\"function_calling\" has more than \(maximumCount) entries") }
        var list: [FunctionDefinition] = []
        for element in elements { list.append(try FunctionDefinition(element)) }
        return list
    }

    /// As an element of OpenAI's `tools`.
    var tool: JSON {
        var function = JSONObject()
        function["name"] = .string(name)
        function["description"] = source.present("description")
        function["parameters"] = source.present("parameters").map(Self.schema)
        return ["type": "function", "function": .object(function)]
    }

    /// A list `[{name, type, description?}]` as the JSON schema that it means; a schema as it is.
    private static func schema(_ parameters: JSON) -> JSON {
        guard let list = parameters.array else { return parameters }
        var properties = JSONObject()
        var required: [JSON] = []
        for parameter in list {
            guard let source = parameter.object, let name = source["name"]?.string else { continue }
            var property = JSONObject(source.members.filter { $0.name != "name" && $0.name != "required" && $0.name != "type" })
            property["type"] = .string(type(source["type"]?.string ?? "string"))
            properties[name] = .object(property)
            if source["required"]?.bool == true { required.append(.string(name)) }
        }
        var schema = JSONObject()
        schema["type"] = "object"
        schema["properties"] = .object(properties)
        if !required.isEmpty { schema["required"] = .array(required) }
        return .object(schema)
    }

    /// JSON schema's name of a type that clients call by their own language's.
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
