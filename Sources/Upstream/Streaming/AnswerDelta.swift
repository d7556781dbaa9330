import JSONCodec

/// The content that a chunk adds to the answer: the `delta` or `message` of OpenAI, DashScope and Ollama.
struct AnswerDelta {
    var content = TextPiece()
    var reasoning = TextPiece()
    /// Fragments of tool calls; empty in almost every chunk, without an allocation.
    var tools: [ToolCallAssembler.Fragment] = []

    /// Reads a `delta` or `message` object, which replaces what was read before. Any other value is skipped. Of a repeated member the last
    /// one counts.
    /// - Throws: `JSONError` for invalid JSON.
    mutating func read(_ scanner: inout JSONScanner) throws(JSONError) {
        self = AnswerDelta()
        var parts = AnswerDelta()
        var refusal = TextPiece()
        var function: ToolCallAssembler.Fragment?
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "content":
                parts = AnswerDelta()
                try parts.readContent(&scanner)
            case "reasoning_content", "reasoning", "thinking":
                let text = try Self.text(&scanner)
                // Some servers send the same text under two names.
                if !text.isEmpty { self.reasoning = text }
            case "refusal": refusal = try Self.text(&scanner)
            case "tool_calls": try self.readToolCalls(&scanner)
            case "function_call":
                guard scanner.peek() == UInt8(ascii: "{") else { return try scanner.skip() }
                var fragment = ToolCallAssembler.Fragment(index: 0)
                try Self.readFunction(&scanner, into: &fragment)
                function = fragment
            default: try scanner.skip()
            }
        }
        content = parts.content
        // A refusal is the model's answer.
        content.append(refusal)
        if reasoning.isEmpty { reasoning = parts.reasoning }
        if let function { tools.append(function) }
    }

    /// Numbers the tool calls of a message that has only complete ones.
    mutating func numberTools(from first: Int) {
        for position in tools.indices { tools[position].index = first + position }
    }

    /// Reads `content`: a string, or parts, of which the thinking ones are reasoning.
    private mutating func readContent(_ scanner: inout JSONScanner) throws(JSONError) {
        switch scanner.peek() {
        case UInt8(ascii: "["): try scanner.array { (scanner) throws(JSONError) in try self.readPart(&scanner) }
        default: try readPart(&scanner)
        }
    }

    /// Reads a part such as `{"type":"text","text":...}` or `{"type":"thinking","thinking":[{"type":"text","text":...}]}`, or bare text.
    private mutating func readPart(_ scanner: inout JSONScanner) throws(JSONError) {
        guard scanner.peek() == UInt8(ascii: "{") else { return content.append(try Self.text(&scanner)) }
        var text = TextPiece()
        var thinking = TextPiece()
        var isThinking = false
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "type":
                let type = try scanner.scalar() ?? ""
                isThinking = type.contains("thinking") || type.contains("reasoning")
            case "text", "content", "refusal": text = try Self.text(&scanner, otherwise: text)
            case "thinking", "reasoning", "reasoning_content": thinking = try Self.text(&scanner, otherwise: thinking)
            default: try scanner.skip()
            }
        }
        if isThinking { thinking.append(text) } else { content.append(text) }
        reasoning.append(thinking)
    }

    /// Reads text: a string, the literal text of a number, or all text in a list or an object of parts. Null is empty.
    static func text(_ scanner: inout JSONScanner) throws(JSONError) -> TextPiece {
        switch scanner.peek() {
        case UInt8(ascii: "\""): return try scanner.textPiece()
        case UInt8(ascii: "["):
            var joined = TextPiece()
            try scanner.array { (scanner) throws(JSONError) in joined.append(try Self.text(&scanner)) }
            return joined
        case UInt8(ascii: "{"):
            var joined = TextPiece()
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "text", "thinking", "content": joined = try Self.text(&scanner, otherwise: joined)
                default: try scanner.skip()
                }
            }
            return joined
        default: return TextPiece(try scanner.scalar() ?? "")
        }
    }

    /// Reads text; returns `earlier` for null and empty text, which members beside the one with the text may have.
    private static func text(_ scanner: inout JSONScanner, otherwise earlier: TextPiece) throws(JSONError) -> TextPiece {
        let text = try Self.text(&scanner)
        return text.isEmpty ? earlier : text
    }

    /// Reads the fragments in `tool_calls`.
    /// - Throws: `JSONError` for more than `ToolCallAssembler.maximumFragments` of them.
    private mutating func readToolCalls(_ scanner: inout JSONScanner) throws(JSONError) {
        tools = []
        try scanner.arrayIfPresent { (scanner) throws(JSONError) in
            guard self.tools.count < ToolCallAssembler.maximumFragments else {
                throw JSONError("more than \(ToolCallAssembler.maximumFragments) fragments of tool calls", at: scanner.offset)
            }
            var fragment = ToolCallAssembler.Fragment()
            try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
                switch key {
                case "index": fragment.index = try scanner.figure()
                case "id": fragment.id = try scanner.scalar()
                case "function": try Self.readFunction(&scanner, into: &fragment)
                default: try scanner.skip()
                }
            }
            self.tools.append(fragment)
        }
    }

    private static func readFunction(_ scanner: inout JSONScanner, into fragment: inout ToolCallAssembler.Fragment) throws(JSONError) {
        try scanner.objectIfPresent { (key, scanner) throws(JSONError) in
            switch key {
            case "name": fragment.name = try scanner.scalar()
            case "arguments": try fragment.readArguments(&scanner)
            default: try scanner.skip()
            }
        }
    }
}

extension ToolCallAssembler.Fragment {
    /// Reads arguments: a string that contains JSON or a part of it, or the JSON itself.
    /// - Throws: `JSONError` for invalid JSON.
    mutating func readArguments(_ scanner: inout JSONScanner) throws(JSONError) {
        switch scanner.peek() {
        case UInt8(ascii: "\""): arguments = try scanner.textPiece()
        case UInt8(ascii: "n"): try scanner.skip()
        default: whole = try scanner.raw()
        }
    }
}
