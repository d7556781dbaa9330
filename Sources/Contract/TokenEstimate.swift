import JSONCodec
import Support

extension Job {
    /// The maximum number of completion tokens that the job requests; nil if absent or outside 1 to 1,000,000,000.
    package var maximumTokens: Int? {
        let number = request["max_completion_tokens"]?.integer ?? request["max_tokens"]?.integer
        return number.flatMap { (1...1_000_000_000).contains($0) ? $0 : nil }
    }
}

/// Estimates token counts for upstreams that do not report them (an interrupted OpenAI-compatible stream reports none).
package enum TokenEstimate {
    /// Tokens of a message's frame.
    private static let perMessage = 4

    /// Estimated prompt tokens of a chat-completions body.
    package static func prompt(_ request: JSONObject) -> Int {
        var tokens = 0
        var counter = TokenEstimator()
        for message in request["messages"]?.array ?? [] {
            tokens = tokens.saturatingAdding(perMessage)
            switch message["content"] {
            case .string(let text): counter.add(text)
            case .array(let parts): for part in parts { if let text = part["text"]?.string { counter.add(text) } }
            default: break
            }
            // The next message begins a line of its own.
            counter.add("\n")
        }
        if let tools = request["tools"], tools.array?.isEmpty == false { counter.add(tools.text) }
        return tokens.saturatingAdding(counter.tokens)
    }

    /// Minimum usage of earlier attempts according to their event log: the prompt once per started answer, and the output. Nil when no
    /// upstream had answered.
    package static func logged(_ events: [LoggedEvent], prompt: Int) -> Usage? {
        var (answers, pieces, calls) = (0, 0, 0)
        var counter = TokenEstimator()
        for event in events {
            switch event.event {
            case .upstream: answers += 1
            case .text(let text), .reasoning(let text):
                counter.add(text)
                pieces += 1
            case .toolCall(let call): calls += Self.call(call.name, call.arguments)
            default: break
            }
        }
        let completion = max(counter.tokens, pieces).saturatingAdding(calls)
        return answers == 0
            ? nil : Usage(promptTokens: prompt.saturatingMultiplied(by: answers), completionTokens: completion, estimated: true)
    }

    /// Estimated tokens of a tool call.
    package static func call(_ name: String, _ arguments: String) -> Int {
        var counter = TokenEstimator()
        counter.add(name)
        counter.add(arguments)
        return counter.tokens
    }
}
