import JSONCodec

/// Parts of the token counts, as far as the upstream reports them.
package struct TokenDetails: Sendable, Hashable {
    /// Prompt tokens from the provider's cache.
    package var cached: Int?
    /// Completion tokens that are reasoning.
    package var reasoning: Int?

    package init(cached: Int? = nil, reasoning: Int? = nil) {
        self.cached = cached
        self.reasoning = reasoning
    }

    /// Reads an object with details in OpenAI's form, such as `prompt_tokens_details`.
    mutating func read(_ scanner: inout JSONScanner) throws(JSONError) {
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "cached_tokens": self.cached = try scanner.figure() ?? self.cached
            case "reasoning_tokens": self.reasoning = try scanner.figure() ?? self.reasoning
            default: try scanner.skip()
            }
        }
    }
}
