import Contract
import JSONCodec

/// Builds the request body of a job from its session.
enum GenerationRequest {
    /// - Parameters:
    ///   - text: the user's message; nil for a request that answers function results, whose messages end `turns`.
    ///   - turns: follow the history.
    /// - Returns: a chat completion request in OpenAI's form.
    static func body(
        settings: SessionSettings, history: ChatHistory, turns: [ChatHistory.Turn] = [], text: String?, model: String?
    ) -> JSONObject {
        var messages: [JSON] = []
        if let system = settings.systemMessage { messages.append(["role": "system", "content": .string(system)]) }
        messages += history.messages
        messages += turns.flatMap(\.messages)
        if let text { messages.append(["role": "user", "content": .string(text)]) }
        var body = JSONObject()
        body["model"] = model.map(JSON.string)
        body["messages"] = .array(messages)
        if !settings.functions.isEmpty { body["tools"] = .array(settings.functions.map(\.tool)) }
        return body
    }
}
