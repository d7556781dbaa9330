import Contract
import JSONCodec

/// The parsed body of `POST /v1/responses` (platform.openai.com, "Responses"). The conversation is complete only after
/// `ResponsesRoute` has added the messages of the previous responses.
struct ResponsesRequest: Sendable, Equatable {
    /// The fields of a chat completions body whose names differ, as an upstream's message names them, and the names of this API.
    static let fieldNames = [
        "response_format": "text.format", "reasoning_effort": "reasoning.effort", "max_tokens": "max_output_tokens",
        "verbosity": "text.verbosity",
    ]
    /// Maximum pairs of `metadata`, and maximum bytes of a key and a value.
    private static let metadataMaximum = (pairs: 16, key: 64, value: 512)

    /// The request without messages.
    private(set) var conversation = Conversation()
    private(set) var instructions: String?
    /// The input's items with ids, as `input_items` lists them.
    private(set) var items: [JSON] = []
    private(set) var streams = false
    private(set) var isBackground = false
    private(set) var isStored = true
    private(set) var previousID: String?
    /// Whether reasoning is reported as a summary, as was asked for.
    private(set) var summarizes = false
    /// The fields that the response object repeats.
    private(set) var echo = JSONObject()

    /// - Parameters:
    ///   - maximumDepth: maximum nesting depth of the JSON.
    ///   - id: the job's id, from which items get their ids.
    ///   - defaultModel: the model of a request that names none.
    /// - Throws: status 400 with the name of the field that is invalid or cannot be honoured.
    init(parsing bytes: [UInt8], maximumDepth: Int, id: JobID, defaultModel: String) throws(HTTPErrorResponse) {
        let json: JSON
        do { json = try JSON(parsing: bytes, maximumDepth: maximumDepth) } catch {
            throw HTTPErrorResponse.invalid("the body is not JSON: \(error)")
        }
        var body = try FieldReader(json)
        let model = try body.string("model").flatMap { $0.isEmpty ? nil : $0 }
        guard model?.utf8.count ?? 0 <= NameLimit.model else {
            throw HTTPErrorResponse.invalid("\"model\" is longer than \(NameLimit.model) bytes")
        }
        conversation.model = model
        echo["model"] = .string(model ?? defaultModel)
        streams = try body.flag("stream") ?? false
        isBackground = try body.flag("background") ?? false
        isStored = try body.flag("store") ?? true
        guard isStored || !isBackground else {
            throw HTTPErrorResponse.invalid("\"background\" requires \"store\": a response that is not stored cannot be retrieved")
        }
        previousID = try body.string("previous_response_id")
        instructions = try body.string("instructions")
        conversation.maximumTokens = try body.positiveInteger("max_output_tokens")
        echo["background"] = .bool(isBackground)
        echo["instructions"] = instructions.map(JSON.string) ?? .null
        echo["max_output_tokens"] = conversation.maximumTokens.map(JSON.integer) ?? .null
        echo["previous_response_id"] = previousID.map(JSON.string) ?? .null
        echo["store"] = .bool(isStored)
        try readMetadata(&body)
        try readTools(&body)
        try readText(&body)
        try readParameters(&body)
        items = try ResponseItems.normalized(body.value("input"), id: id, body)
        try body.finish()
    }

    private mutating func readMetadata(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        echo["metadata"] = [:]
        guard let metadata = body.value("metadata") else { return }
        let maximum = Self.metadataMaximum
        guard let members = metadata.object?.members, members.count <= maximum.pairs,
            members.allSatisfy({ $0.name.utf8.count <= maximum.key && $0.value.string?.utf8.count ?? .max <= maximum.value })
        else {
            throw body.invalid(
                "metadata",
                "an object of at most \(maximum.pairs) strings of at most \(maximum.value) bytes, with names of at most \(maximum.key) bytes"
            )
        }
        echo["metadata"] = metadata
    }

    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
    private mutating func readTools(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        let tools = try body.array("tools") ?? []
        for (index, json) in tools.enumerated() {
            var tool = try FieldReader(json, at: "tools[\(index)]")
            guard try tool.string("type") == "function" else { throw tool.unsupported("type") }
            conversation.tools.append(
                Conversation.Tool(
                    name: try tool.requiredString("name"), description: try tool.string("description"),
                    parameters: tool.value("parameters"), strict: try tool.flag("strict")))
            try tool.finish()
        }
        echo["tools"] = .array(tools)
        let choice = body.value("tool_choice")
        switch choice {
        case nil: break
        case "auto"?: conversation.toolChoice = .auto
        case "none"?: conversation.toolChoice = Conversation.ToolChoice.none
        case "required"?: conversation.toolChoice = .required
        default:
            guard var function = try body.object("tool_choice") else { break }
            guard try function.string("type") == "function" else { throw function.unsupported("type") }
            conversation.toolChoice = .named(try function.requiredString("name"))
            try function.finish()
        }
        if conversation.tools.isEmpty { conversation.toolChoice = nil }
        echo["tool_choice"] = choice ?? "auto"
        let isParallel = try body.flag("parallel_tool_calls")
        if !conversation.tools.isEmpty { conversation.allowsParallelCalls = isParallel }
        echo["parallel_tool_calls"] = .bool(isParallel ?? true)
        guard try body.positiveInteger("max_tool_calls") == nil else { throw body.unsupported("max_tool_calls") }
        echo["max_tool_calls"] = .null
    }

    /// Reads `text` and `reasoning`.
    private mutating func readText(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        echo["text"] = ["format": ["type": "text"]]
        if let value = body.value("text"), var text = try body.object("text") {
            if var format = try text.object("format") {
                switch try format.string("type") {
                case "text": break
                case "json_object": conversation.format = .object
                case "json_schema":
                    var schema = JSONObject([.init(name: "name", value: .string(try format.requiredString("name")))])
                    schema["description"] = try format.string("description").map(JSON.string)
                    guard let definition = format.value("schema") else { throw format.invalid("schema", "a JSON schema") }
                    schema["schema"] = definition
                    schema["strict"] = try format.flag("strict").map(JSON.bool)
                    conversation.format = .schema(.object(schema))
                default: throw format.invalid("type", "text, json_object or json_schema")
                }
                try format.finish()
                echo["text"] = value
            }
            if let verbosity = try text.string("verbosity") {
                conversation.parameters.append(.init(name: "verbosity", value: .string(verbosity)))
                echo["text"] = value
            }
            try text.finish()
        }
        echo["reasoning"] = ["effort": .null, "summary": .null]
        if var reasoning = try body.object("reasoning") {
            conversation.effort = try reasoning.string("effort")
            let summary = try reasoning.string("summary")
            let former = try reasoning.string("generate_summary")
            summarizes = (summary ?? former) != nil
            try reasoning.finish()
            echo["reasoning"] = [
                "effort": conversation.effort.map(JSON.string) ?? .null, "summary": (summary ?? former).map(JSON.string) ?? .null,
            ]
        }
    }

    /// Reads sampling parameters and the fields that are only accepted with the value that describes Sluice.
    private mutating func readParameters(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        for name in ["temperature", "top_p"] {
            let value = try body.number(name)
            if let value { conversation.parameters.append(.init(name: name, value: value)) }
            echo[name] = value ?? .null
        }
        conversation.user = try body.string("user")
        echo["user"] = conversation.user.map(JSON.string) ?? .null
        if let tier = try body.string("service_tier"), tier != "auto", tier != "default" { throw body.unsupported("service_tier") }
        if let truncation = try body.string("truncation"), truncation != "disabled" { throw body.unsupported("truncation") }
        echo["truncation"] = "disabled"
        if let count = body.value("top_logprobs"), count.integer != 0 { throw body.unsupported("top_logprobs") }
        // Nothing to remember: every reasoning item has its encrypted content if the provider has sent one.
        for include in try body.array("include") ?? [] where include.string != "reasoning.encrypted_content" {
            throw body.unsupported("include")
        }
        if var options = try body.object("stream_options") {
            options.ignore("include_obfuscation")
            try options.finish()
        }
        // Hints that change nothing in the answer.
        body.ignore("prompt_cache_key", "prompt_cache_retention", "safety_identifier")
    }
}
