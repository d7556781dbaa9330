import JSONCodec

extension Job {
    /// The maximum number of completion tokens that the job requests; nil if absent or outside 1 to 1,000,000,000.
    package var maximumTokens: Int? {
        let number = request["max_completion_tokens"]?.integer ?? request["max_tokens"]?.integer
        return number.flatMap { (1...1_000_000_000).contains($0) ? $0 : nil }
    }
}

/// Estimates token counts for upstreams that do not report them (an interrupted OpenAI-compatible stream reports none).
package enum TokenEstimate {
    /// Estimated prompt tokens: one per four ASCII characters, one per other character. Within a factor of two of common tokenizers.
    package static func prompt(_ request: JSONObject) -> Int {
        var quarters = 0
        for message in request["messages"]?.array ?? [] {
            quarters += 16
            switch message["content"] {
            case .string(let text): quarters += weight(text)
            case .array(let parts): for part in parts { quarters += part["text"]?.string.map(weight) ?? 0 }
            default: break
            }
        }
        if let tools = request["tools"], tools.array?.isEmpty == false { quarters += weight(tools.text) }
        return (quarters + 3) / 4
    }

    /// Minimum usage of earlier attempts according to their event log: the prompt once per started answer, and the output. Nil when no
    /// upstream had answered.
    package static func logged(_ events: [LoggedEvent], prompt: Int) -> Usage? {
        var (answers, quarters) = (0, 0)
        for event in events {
            switch event.event {
            case .upstream: answers += 1
            case .text(let text), .reasoning(let text): quarters += weight(text)
            case .toolCall(let call): quarters += weight(call.name) + weight(call.arguments)
            default: break
            }
        }
        return answers == 0 ? nil : Usage(promptTokens: answers * prompt, completionTokens: (quarters + 3) / 4, estimated: true)
    }

    /// The weight of a text in quarter tokens.
    package static func weight(_ text: String) -> Int {
        var quarters = 0
        for byte in text.utf8 {
            // A non-ASCII character counts once, by its first byte.
            if byte < 0x80 { quarters += 1 } else if byte & 0xC0 == 0xC0 { quarters += 4 }
        }
        return quarters
    }
}
