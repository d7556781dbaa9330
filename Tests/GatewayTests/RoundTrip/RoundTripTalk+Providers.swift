import JSONCodec
import Testing

@testable import Upstream

/// What each provider understands of the request that its adapter makes.
extension RoundTripTalk {
    init(_ kind: UpstreamConfiguration.Kind, sent body: JSON) throws {
        switch kind {
        case .openai: try readOpenAI(body, parameters: body, messages: body["messages"])
        case .dashscope: try readOpenAI(body, parameters: body["parameters"] ?? .null, messages: body["input"]?["messages"])
        case .anthropic: try readAnthropic(body)
        case .ollama: try readOllama(body)
        }
    }

    private static func strings(_ json: JSON?) -> [String] { json?.array?.compactMap(\.string) ?? [] }

    private mutating func readFunctions(_ list: JSON?) throws {
        for tool in list?.array ?? [] {
            let function = try #require(tool["function"])
            tools.append(
                Tool(
                    name: function["name"]?.string ?? "", description: function["description"]?.string,
                    schema: function["parameters"] ?? .null, strict: function["strict"]?.bool))
        }
    }

    /// Reads OpenAI's chat completions, or DashScope's messages, whose parts have no type.
    private mutating func readOpenAI(_ body: JSON, parameters: JSON, messages: JSON?) throws {
        for message in try #require(messages?.array) {
            var pieces: [Piece] = []
            switch message["content"] {
            case .string(let text)?: if !text.isEmpty { pieces = [.text(text)] }
            case .array(let parts)?:
                for part in parts {
                    if let text = part["text"]?.string { pieces.append(.text(text)) }
                    if let url = part["image_url"]?["url"]?.string ?? part["image"]?.string { pieces.append(.image(url)) }
                }
            default: break
            }
            let texts = pieces.compactMap { if case .text(let text) = $0 { text } else { nil } }
            switch message["role"] {
            case "system"?: system = texts.joined()
            case "user"?: items.append(.user(pieces))
            case "tool"?: items.append(.result(id: message["tool_call_id"]?.string ?? "", texts.joined(), isError: false))
            default:
                items += texts.map { .said($0) }
                for call in message["tool_calls"]?.array ?? [] {
                    let arguments = try JSON(parsing: try #require(call["function"]?["arguments"]?.string))
                    items.append(.call(id: call["id"]?.string ?? "", name: call["function"]?["name"]?.string ?? "", arguments: arguments))
                }
            }
        }
        try readFunctions(parameters["tools"])
        switch parameters["tool_choice"] {
        case nil: break
        case "auto"?: choice = .auto
        case "none"?: choice = Choice.none
        case "required"?: choice = .required
        case let named?: choice = .named(try #require(named["function"]?["name"]?.string))
        }
        isParallel = parameters["parallel_tool_calls"]?.bool
        maximumTokens = (parameters["max_tokens"] ?? parameters["max_completion_tokens"])?.integer
        stop = Self.strings(parameters["stop"])
        schema = parameters["response_format"]?["json_schema"]?["schema"]
        isJSON = parameters["response_format"]?["type"] == "json_object"
        effort = parameters["reasoning_effort"]?.string
        temperature = parameters["temperature"]?.text
        user = parameters["user"]?.string
    }

    private mutating func readAnthropic(_ body: JSON) throws {
        system = body["system"]?.string ?? ""
        for message in try #require(body["messages"]?.array) {
            var pieces: [Piece] = []
            for block in try #require(message["content"]?.array) {
                let text = block["text"]?.string ?? ""
                switch block["type"]?.string {
                case "text": if message["role"] == "user" { pieces.append(.text(text)) } else { items.append(.said(text)) }
                case "image":
                    let source = try #require(block["source"])
                    let url = source["url"]?.string ?? "data:image/png;base64,\(source["data"]?.string ?? "")"
                    pieces.append(.image(url))
                case "thinking":
                    items.append(.thought(block["thinking"]?.string ?? "", signature: block["signature"]?.string ?? ""))
                case "redacted_thinking": items.append(.redacted(block["data"]?.string ?? ""))
                case "tool_use":
                    let input = try #require(block["input"])
                    items.append(.call(id: block["id"]?.string ?? "", name: block["name"]?.string ?? "", arguments: input))
                case "tool_result":
                    let content = Self.texts(block["content"])
                    items.append(.result(id: block["tool_use_id"]?.string ?? "", content, isError: block["is_error"] == true))
                default: Issue.record("unknown block \(block.text)")
                }
            }
            if !pieces.isEmpty { items.append(.user(pieces)) }
        }
        for tool in body["tools"]?.array ?? [] {
            tools.append(
                Tool(
                    name: tool["name"]?.string ?? "", description: tool["description"]?.string, schema: tool["input_schema"] ?? .null,
                    strict: tool["strict"]?.bool))
        }
        switch body["tool_choice"]?["type"]?.string {
        case "auto": choice = .auto
        case "none": choice = Choice.none
        case "any": choice = .required
        case "tool": choice = .named(body["tool_choice"]?["name"]?.string ?? "")
        default: break
        }
        if body["tool_choice"]?["disable_parallel_tool_use"] == true { isParallel = false }
        maximumTokens = body["max_tokens"]?.integer
        stop = Self.strings(body["stop_sequences"])
        schema = body["output_config"]?["format"]?["schema"]
        effort = body["output_config"]?["effort"]?.string
        temperature = body["temperature"]?.text
        user = body["metadata"]?["user_id"]?.string
    }

    private static func texts(_ content: JSON?) -> String { (content?.array ?? []).compactMap { $0["text"]?.string }.joined() }

    private mutating func readOllama(_ body: JSON) throws {
        for message in try #require(body["messages"]?.array) {
            let text = message["content"]?.string ?? ""
            switch message["role"] {
            case "system"?: system = text
            case "user"?:
                let images = Self.strings(message["images"]).map { Piece.image("data:image/png;base64,\($0)") }
                items.append(.user([.text(text)] + images))
            case "tool"?: items.append(.result(id: message["tool_name"]?.string ?? "", text, isError: false))
            default:
                if !text.isEmpty { items.append(.said(text)) }
                for call in message["tool_calls"]?.array ?? [] {
                    let name = call["function"]?["name"]?.string ?? ""
                    items.append(.call(id: name, name: name, arguments: call["function"]?["arguments"] ?? .null))
                }
            }
        }
        try readFunctions(body["tools"])
        let options = body["options"]
        maximumTokens = options?["num_predict"]?.integer
        stop = Self.strings(options?["stop"])
        isJSON = body["format"] == "json"
        if !isJSON { schema = body["format"] }
        effort = body["think"]?.string
        temperature = options?["temperature"]?.text
    }
}
