import Contract
import JSONCodec

/// One chunk of an OpenAI-compatible stream, decoded directly from its bytes.
struct OpenAIChunk {
    /// The content that a chunk adds to the answer. DashScope's frames have the same fields in `message`.
    struct Delta {
        var content: String?
        var reasoning: String?
        /// Fragments of tool calls; empty in almost every chunk, without an allocation.
        var tools: [ToolCallAssembler.Fragment] = []
    }

    var delta = Delta()
    var finishReason: String?
    var hasUsage = false
    var promptTokens: Int?
    var completionTokens: Int?
    /// Whether the chunk has a `choices` array, possibly empty.
    var isChunk = false
    /// Whether the `choices` array has an element.
    var hasChoice = false
    var error: ProviderError?

    /// - Parameter isDocument: Whether the bytes are a whole `chat.completion`, whose choice has a `message` instead of a `delta`.
    /// - Throws: `JSONError` for bytes that are not a JSON object and for a known member of the wrong type.
    init(scanning bytes: Span<UInt8>, isDocument: Bool = false) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        var isErrorObject = false
        var message: String?
        var code: String?
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "choices": try self.choices(&scanner, isDocument: isDocument)
            case "usage": try self.usage(&scanner)
            case "error": if try !scanner.null() { self.error = ProviderError(try scanner.value()) }
            // Errors of vLLM and LM Studio: {"object":"error","message":...}.
            case "object": isErrorObject = try scanner.scalar() == "error"
            case "message": message = try scanner.scalar()
            case "code": code = try scanner.scalar()
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        if error == nil, isErrorObject || !isChunk && message != nil { error = ProviderError(message: message ?? "", code: code) }
    }

    /// Reads the first element of `choices`.
    private mutating func choices(_ scanner: inout JSONScanner, isDocument: Bool) throws(JSONError) {
        guard try !scanner.null() else { return }
        isChunk = true
        var isFirst = true
        try scanner.array { (scanner) throws(JSONError) in
            // Requests always ask for one choice; a second one would be a different answer.
            guard isFirst else { return try scanner.skip() }
            isFirst = false
            hasChoice = true
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "delta" where !isDocument, "message" where isDocument: if try !scanner.null() { try self.delta.read(&scanner) }
                case "finish_reason": self.finishReason = try scanner.optionalString()
                default: try scanner.skip()
                }
            }
        }
    }

    private mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        guard try !scanner.null() else { return }
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "prompt_tokens": self.promptTokens = try scanner.figure()
            case "completion_tokens": self.completionTokens = try scanner.figure()
            default: try scanner.skip()
            }
        }
        hasUsage = promptTokens != nil || completionTokens != nil
    }
}

extension OpenAIChunk.Delta {
    /// Reads a `delta` or `message` object.
    /// - Throws: `JSONError` for a known member of the wrong type.
    mutating func read(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "content": try Self.text(&scanner, into: &self.content)
            case "reasoning_content", "reasoning": try Self.text(&scanner, into: &self.reasoning)
            // A refusal is the model's answer.
            case "refusal": if let text = try scanner.optionalString(), !text.isEmpty { self.content = (self.content ?? "") + text }
            case "tool_calls": try self.toolCalls(&scanner)
            case "function_call":
                guard try !scanner.null() else { return }
                var fragment = ToolCallAssembler.Fragment(index: 0)
                try Self.function(&scanner, into: &fragment)
                self.tools.append(fragment)
            default: try scanner.skip()
            }
        }
    }

    /// Reads text: a string, null, or parts `[{"type":"text","text":...}]`.
    private static func text(_ scanner: inout JSONScanner, into text: inout String?) throws(JSONError) {
        guard scanner.peek() == UInt8(ascii: "[") else {
            guard let string = try scanner.optionalString(), !string.isEmpty else { return }
            text = string
            return
        }
        var joined = ""
        try scanner.array { (scanner) throws(JSONError) in
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "text": joined += try scanner.optionalString() ?? ""
                default: try scanner.skip()
                }
            }
        }
        if !joined.isEmpty { text = joined }
    }

    /// Reads the fragments in `tool_calls`.
    /// - Throws: `JSONError` for more than `ToolCallAssembler.maximumFragments` of them.
    private mutating func toolCalls(_ scanner: inout JSONScanner) throws(JSONError) {
        guard try !scanner.null() else { return }
        try scanner.array { (scanner) throws(JSONError) in
            guard self.tools.count < ToolCallAssembler.maximumFragments else {
                throw JSONError("more than \(ToolCallAssembler.maximumFragments) fragments of tool calls", at: scanner.offset)
            }
            var fragment = ToolCallAssembler.Fragment()
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "index": fragment.index = try scanner.figure()
                case "id": fragment.id = try scanner.optionalString()
                case "function": if try !scanner.null() { try Self.function(&scanner, into: &fragment) }
                default: try scanner.skip()
                }
            }
            self.tools.append(fragment)
        }
    }

    private static func function(_ scanner: inout JSONScanner, into fragment: inout ToolCallAssembler.Fragment) throws(JSONError) {
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "name": fragment.name = try scanner.optionalString()
            case "arguments": fragment.arguments = try scanner.optionalString()
            default: try scanner.skip()
            }
        }
    }
}

extension JSONScanner {
    /// Reads a string, or the literal text of a number or boolean. Returns nil for null, arrays and objects, which are skipped.
    mutating func scalar() throws(JSONError) -> String? {
        switch peek() {
        case UInt8(ascii: "\""): return try string()
        case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: "n"), nil:
            try skip()
            return nil
        default: return try raw()
        }
    }
}
