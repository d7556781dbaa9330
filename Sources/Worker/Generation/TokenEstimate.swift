import Contract
import JSONCodec

extension Job {
    /// Tokens that it asked for at most; nil also for what cannot be meant.
    var maximumTokens: Int? {
        let number = request["max_completion_tokens"]?.integer ?? request["max_tokens"]?.integer
        return number.flatMap { (1...1_000_000_000).contains($0) ? $0 : nil }
    }
}

/// What a prompt costs in tokens, roughly, for when an upstream does not say (an interrupted OpenAI-compatible stream reports nothing).
enum TokenEstimate {
    /// Four ASCII characters a token, one token for any other: within a factor of two for the common tokenizers.
    static func prompt(_ request: JSONObject) -> Int {
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

    /// What earlier attempts cost at least, by what they logged: the prompt for each answer that began, and the output. Nil when no
    /// upstream had answered.
    static func logged(_ events: [LoggedEvent], prompt: Int) -> Usage? {
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

    private static func weight(_ text: String) -> Int {
        var quarters = 0
        for byte in text.utf8 {
            // A character beyond ASCII counts once, by its first byte.
            if byte < 0x80 { quarters += 1 } else if byte & 0xC0 == 0xC0 { quarters += 4 }
        }
        return quarters
    }
}
