import Contract
import JSONCodec

/// One chunk of an OpenAI-compatible stream, decoded directly from its bytes.
struct OpenAIChunk {
    var delta = AnswerDelta()
    var finishReason: String?
    /// The stop sequence that ended the answer. Extensions of vLLM and SGLang, where token ids are numbers.
    var stopSequence: String?
    var promptTokens: Int?
    var completionTokens: Int?
    var details = TokenDetails()
    /// Whether the `choices` array has an element.
    var hasChoice = false
    var error: ProviderError?

    /// - Parameter isDocument: Whether the bytes are a whole `chat.completion`, whose choice has a `message` instead of a `delta`.
    /// - Throws: `JSONError` for bytes that are neither a JSON object nor a list with an error.
    init(scanning bytes: Span<UInt8>, isDocument: Bool = false) throws(JSONError) {
        self = try repairingUTF8(bytes) { (bytes) throws(JSONError) in try OpenAIChunk(valid: bytes, isDocument: isDocument) }
    }

    private init(valid bytes: Span<UInt8>, isDocument: Bool) throws(JSONError) {
        var scanner = JSONScanner(bytes)
        if scanner.peek() == UInt8(ascii: "[") {
            error = try ProviderError(scanning: bytes)
            guard error == nil else { return }
        }
        var isError = false
        var hasMessage = false
        var hasChoices = false
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "choices":
                hasChoices = scanner.peek() != UInt8(ascii: "n")
                try self.choices(&scanner, isDocument: isDocument)
            case "usage": try self.usage(&scanner)
            case "error": self.error = ProviderError(member: try scanner.value()) ?? self.error
            // Errors of vLLM and LM Studio: {"object":"error","message":...}.
            case "object": if try scanner.scalar() == "error" { isError = true }
            case "message", "detail": if try !scanner.skipsEmpty() { hasMessage = true }
            case "error_message", "error_msg", "error_type", "error_code", "errors": if try !scanner.skipsEmpty() { isError = true }
            default: try scanner.skip()
            }
        }
        try scanner.finish()
        if error == nil, !hasChoice, isError || hasMessage && !hasChoices {
            error = try ProviderError(scanning: bytes) ?? (isError ? ProviderError(message: "") : nil)
        }
    }

    /// Reads the first element of `choices`.
    private mutating func choices(_ scanner: inout JSONScanner, isDocument: Bool) throws(JSONError) {
        guard try !scanner.null() else { return }
        try scanner.array { (scanner) throws(JSONError) in
            // Requests always ask for one choice; a second one would be a different answer.
            guard !self.hasChoice else { return try scanner.skip() }
            self.hasChoice = true
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "delta" where !isDocument, "message" where isDocument: try self.delta.read(&scanner)
                case "finish_reason": self.finishReason = try scanner.scalar()
                case "stop_reason", "matched_stop":
                    if scanner.peek() == UInt8(ascii: "\"") { self.stopSequence = try scanner.string() } else { try scanner.skip() }
                case "error": self.error = ProviderError(member: try scanner.value()) ?? self.error
                default: try scanner.skip()
                }
            }
        }
    }

    private mutating func usage(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "prompt_tokens": self.promptTokens = try scanner.figure()
            case "completion_tokens": self.completionTokens = try scanner.figure()
            case "prompt_tokens_details", "completion_tokens_details": try self.details.read(&scanner)
            // DeepSeek's name.
            case "prompt_cache_hit_tokens": self.details.cached = try scanner.figure() ?? self.details.cached
            default: try scanner.skip()
            }
        }
    }
}

extension JSONScanner {
    /// Skips a value. Returns whether it was null or an empty string, list or object.
    fileprivate mutating func skipsEmpty() throws(JSONError) -> Bool {
        ["null", "\"\"", "[]", "{}"].contains(try raw())
    }
}
