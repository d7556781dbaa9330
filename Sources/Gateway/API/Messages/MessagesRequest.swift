import Contract
import JSONCodec

/// The parsed body of `POST /v1/messages` and `/v1/messages/count_tokens` (docs.anthropic.com, "Messages"), as a conversation.
struct MessagesRequest: Sendable, Equatable {
    /// The fields that determine the form of the response.
    struct Options: Sendable, Equatable {
        let model: String
        let streams: Bool
        var thinking = ThinkingDisplay.none
        var stopSequences: [String] = []
    }

    /// What an answer shows of the model's thinking.
    enum ThinkingDisplay: Sendable, Equatable {
        /// No thinking blocks.
        case none
        /// Blocks without text. One without a signature is of no use and left out.
        case omitted
        case text
    }

    /// The fields of a chat completions body whose names differ, as an upstream's message names them, and Anthropic's names.
    static let fieldNames = [
        "response_format": "output_config.format", "reasoning_effort": "output_config.effort", "stop": "stop_sequences",
        "user": "metadata.user_id", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    ]

    private(set) var conversation = Conversation()
    private(set) var options: Options

    /// - Parameters:
    ///   - maximumDepth: maximum nesting depth of the JSON.
    ///   - counts: whether only the tokens are counted, for which `max_tokens` is not required.
    /// - Throws: status 400 with the name of the field that is invalid or cannot be honoured.
    init(parsing bytes: [UInt8], maximumDepth: Int, counts: Bool = false) throws(HTTPErrorResponse) {
        let json: JSON
        do { json = try JSON(parsing: bytes, maximumDepth: maximumDepth) } catch {
            throw HTTPErrorResponse.invalid("the body is not JSON: \(error)")
        }
        var body = try FieldReader(json)
        let model = try body.requiredString("model")
        guard model.utf8.count <= NameLimit.model else {
            throw HTTPErrorResponse.invalid("\"model\" is longer than \(NameLimit.model) bytes")
        }
        conversation.model = model
        options = Options(model: model, streams: try body.flag("stream") ?? false)
        conversation.maximumTokens = try body.positiveInteger("max_tokens")
        guard counts || conversation.maximumTokens != nil else { throw body.invalid("max_tokens", "a whole number above 0") }
        if let system = body.value("system") {
            let parts = try Self.system(system)
            if !parts.isEmpty { conversation.messages.append(.system(parts)) }
        }
        guard let messages = try body.array("messages"), !messages.isEmpty else {
            throw body.invalid("messages", "an array of at least one message")
        }
        for (index, message) in messages.enumerated() {
            conversation.messages += try Self.messages(of: message, at: "messages[\(index)]")
        }
        try readTools(&body)
        try readParameters(&body)
        try readOutput(&body)
        conversation.extensions["cache_control"] = try body.cachePoint()
        conversation.extensions["service_tier"] = try body.string("service_tier").map(JSON.string)
        try body.finish()
    }

    /// Reads `tools` and `tool_choice`.
    private mutating func readTools(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        for (index, json) in (try body.array("tools") ?? []).enumerated() {
            var tool = try FieldReader(json, at: "tools[\(index)]")
            // A tool with another type is one that Anthropic runs itself.
            if let type = try tool.string("type"), type != "custom" { throw tool.unsupported("type") }
            var read = Conversation.Tool(
                name: try tool.requiredString("name"), description: try tool.string("description"),
                parameters: tool.value("input_schema"), strict: try tool.flag("strict"))
            read.extensions["cache_control"] = try tool.cachePoint()
            read.extensions["eager_input_streaming"] = try tool.flag("eager_input_streaming").map(JSON.bool)
            conversation.tools.append(read)
            try tool.finish()
        }
        guard var choice = try body.object("tool_choice") else { return }
        switch try choice.string("type") {
        case "auto": conversation.toolChoice = .auto
        case "any": conversation.toolChoice = .required
        case "none": conversation.toolChoice = Conversation.ToolChoice.none
        case "tool": conversation.toolChoice = .named(try choice.requiredString("name"))
        default: throw choice.invalid("type", "auto, any, tool or none")
        }
        if try choice.flag("disable_parallel_tool_use") ?? false { conversation.allowsParallelCalls = false }
        try choice.finish()
        guard !conversation.tools.isEmpty || conversation.toolChoice == Conversation.ToolChoice.none else {
            throw HTTPErrorResponse.invalid("\"tool_choice\" requires \"tools\"")
        }
        if conversation.tools.isEmpty { conversation.toolChoice = nil }
    }

    /// Reads sampling parameters, `stop_sequences`, `metadata` and `thinking`.
    private mutating func readParameters(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        for name in ["temperature", "top_p", "top_k"] {
            if let value = try body.number(name) { conversation.parameters.append(.init(name: name, value: value)) }
        }
        for sequence in try body.array("stop_sequences") ?? [] {
            guard let text = sequence.string else { throw body.invalid("stop_sequences", "an array of strings") }
            conversation.stop.append(text)
        }
        options.stopSequences = conversation.stop
        if var metadata = try body.object("metadata") {
            conversation.user = try metadata.string("user_id")
            try metadata.finish()
        }
        guard let value = body.value("thinking"), var thinking = try body.object("thinking") else { return }
        switch try thinking.string("type") {
        case "disabled": break
        case "enabled":
            guard try thinking.positiveInteger("budget_tokens") != nil else {
                throw thinking.invalid("budget_tokens", "a whole number above 0")
            }
            fallthrough
        case "adaptive":
            let display = try thinking.string("display")
            conversation.parameters.append(.init(name: "thinking", value: value))
            options.thinking = display == "omitted" ? .omitted : .text
        default: throw thinking.invalid("type", "enabled, adaptive or disabled")
        }
        try thinking.finish()
    }

    /// Reads `output_config`.
    private mutating func readOutput(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        guard var output = try body.object("output_config") else { return }
        conversation.effort = try output.string("effort")
        if var format = try output.object("format") {
            guard try format.string("type") == "json_schema" else { throw format.invalid("type", "json_schema") }
            guard let schema = format.value("schema") else { throw format.invalid("schema", "a JSON schema") }
            conversation.format = .schema(["name": "output", "schema": schema])
            try format.finish()
        }
        try output.finish()
    }
}

extension MessagesRequest {
    /// Reads a message. A user's message with tool results becomes several, and so does an assistant's with content after a call.
    private static func messages(of json: JSON, at path: String) throws(HTTPErrorResponse) -> [Conversation.Message] {
        var message = try FieldReader(json, at: path)
        let role = try message.string("role")
        guard let content = message.value("content") else { throw message.invalid("content", "a string or an array") }
        try message.finish()
        let blocks: [JSON]
        switch content {
        case .string(let text): blocks = [["type": "text", "text": .string(text)]]
        case .array(let list): blocks = list
        default: throw message.invalid("content", "a string or an array")
        }
        var messages: [Conversation.Message] = []
        var parts: [Conversation.Part] = []
        var calls: [Conversation.Call] = []
        for (index, json) in blocks.enumerated() {
            var block = try FieldReader(json, at: "\(path).content[\(index)]")
            let cache = try block.cachePoint()
            let type = try block.string("type")
            if role == "assistant", type != "tool_use", !calls.isEmpty {
                messages.append(.assistant(parts, calls: calls))
                (parts, calls) = ([], [])
            }
            switch (role, type) {
            case ("user", "tool_result"):
                if !parts.isEmpty { messages.append(.user(parts)) }
                parts = []
                messages.append(try toolResult(&block, cache: cache))
            case ("assistant", "tool_use"):
                guard let input = block.value("input"), input.object != nil else { throw block.invalid("input", "an object") }
                calls.append(
                    Conversation.Call(
                        id: try block.requiredString("id"), name: try block.requiredString("name"), arguments: input.text,
                        cachePoint: cache))
                // Who may call the tool; only the model does here.
                block.ignore("caller")
            case ("assistant", "thinking"):
                parts.append(.reasoning(try block.string("thinking") ?? "", signature: try block.string("signature")))
            case ("assistant", "redacted_thinking"): parts.append(.redactedReasoning(try block.requiredString("data")))
            default:
                parts.append(try part(type, &block))
                if let cache { parts.append(.cachePoint(cache)) }
            }
            try block.finish()
        }
        switch role {
        case "user": if !parts.isEmpty || messages.isEmpty { messages.append(.user(parts)) }
        case "assistant": if !parts.isEmpty || !calls.isEmpty || messages.isEmpty { messages.append(.assistant(parts, calls: calls)) }
        default: throw message.invalid("role", "user or assistant")
        }
        return messages
    }

    /// Reads a `tool_result` block. Chat completions have no mark for an error, so the text begins with one.
    private static func toolResult(_ block: inout FieldReader, cache: JSON?) throws(HTTPErrorResponse) -> Conversation.Message {
        var parts: [Conversation.Part] = []
        var cache = cache
        let isError = try block.flag("is_error") ?? false
        if isError { parts.append(.text("[error]")) }
        switch block.value("content") {
        case nil: break
        case .string(let text)?: parts.append(.text(text))
        case .array(let list)?:
            for (index, json) in list.enumerated() {
                var inner = try FieldReader(json, at: block.name(of: "content[\(index)]"))
                cache = try inner.cachePoint() ?? cache
                parts.append(try part(inner.string("type"), &inner))
                try inner.finish()
            }
        default: throw block.invalid("content", "a string or an array")
        }
        // A tool's texts are one text for most providers.
        let texts = parts.compactMap { if case .text(let text) = $0 { text } else { nil } }
        if texts.count == parts.count { parts = [.text(texts.joined(separator: "\n"))] }
        if let cache { parts.append(.cachePoint(cache)) }
        return .toolResult(callID: try block.requiredString("tool_use_id"), parts, isError: isError)
    }

    /// Reads a block of text or an image.
    private static func part(_ type: String?, _ block: inout FieldReader) throws(HTTPErrorResponse) -> Conversation.Part {
        switch type {
        case "text":
            guard let text = try block.string("text") else { throw block.invalid("text", "a string") }
            // Where an earlier answer cites its sources, which no request asks for.
            block.ignore("citations")
            return .text(text)
        case "image":
            guard var source = try block.object("source") else { throw block.invalid("source", "an object") }
            let url: String
            switch try source.string("type") {
            case "base64": url = "data:\(try source.requiredString("media_type"));base64,\(try source.requiredString("data"))"
            case "url": url = try source.requiredString("url")
            default: throw source.unsupported("type")
            }
            try source.finish()
            return .image(url: url)
        default: throw block.unsupported("type")
        }
    }

    /// Reads `system`: a string or text blocks. Blocks without cache points are one text, which every provider takes.
    private static func system(_ json: JSON) throws(HTTPErrorResponse) -> [Conversation.Part] {
        if let text = json.string { return text.isEmpty ? [] : [.text(text)] }
        guard let list = json.array else { throw HTTPErrorResponse.invalid("\"system\" must be a string or an array of text blocks") }
        var parts: [Conversation.Part] = []
        var texts: [String] = []
        for (index, json) in list.enumerated() {
            var block = try FieldReader(json, at: "system[\(index)]")
            guard try block.string("type") == "text" else { throw block.unsupported("type") }
            guard let text = try block.string("text") else { throw block.invalid("text", "a string") }
            block.ignore("citations")
            let cache = try block.cachePoint()
            try block.finish()
            texts.append(text)
            guard let cache else { continue }
            parts += [.text(texts.joined(separator: "\n\n")), .cachePoint(cache)]
            texts = []
        }
        let rest = texts.joined(separator: "\n\n")
        if !rest.isEmpty { parts.append(.text(rest)) }
        return parts
    }
}

extension FieldReader {
    /// Reads `cache_control`.
    fileprivate mutating func cachePoint() throws(HTTPErrorResponse) -> JSON? {
        guard let value = value("cache_control") else { return nil }
        guard value.object != nil else { throw invalid("cache_control", "an object") }
        return value
    }
}
