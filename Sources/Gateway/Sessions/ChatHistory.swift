import Contract
import JSONCodec

/// The conversation of a session: turns of a user's message and its answer, limited in number and bytes. Drops the oldest turns first.
struct ChatHistory: Sendable, Hashable {
    struct Turn: Sendable, Hashable {
        var user: String
        /// The text relayed by the end of the request. May be partial or empty.
        var answer: String

        fileprivate var size: Int { user.utf8.count + answer.utf8.count }
    }

    private(set) var turns: [Turn] = []
    /// Bytes of all texts, in UTF-8.
    private(set) var size = 0
    private let maximumTurns: Int
    private let maximumSize: Int

    init(maximumTurns: Int, maximumSize: Int) {
        self.maximumTurns = maximumTurns
        self.maximumSize = maximumSize
    }

    mutating func append(user: String, answer: String) {
        guard maximumTurns > 0 else { return }
        let turn = Turn(user: user, answer: answer)
        turns.append(turn)
        size += turn.size
        var excess = 0
        while turns.count - excess > maximumTurns || size > maximumSize, excess < turns.count {
            size -= turns[excess].size
            excess += 1
        }
        turns.removeFirst(excess)
    }

    /// The turns as OpenAI chat messages. Empty answers are left out, because upstreams reject them.
    var messages: [JSON] {
        turns.flatMap { turn -> [JSON] in
            let user: JSON = ["role": "user", "content": .string(turn.user)]
            return turn.answer.isEmpty ? [user] : [user, ["role": "assistant", "content": .string(turn.answer)]]
        }
    }

    // MARK: in Redis

    /// An array of `[user, answer]`.
    var json: JSON { .array(turns.map { [.string($0.user), .string($0.answer)] }) }

    /// Restores a stored history. Malformed turns are skipped.
    init(stored json: JSON, maximumTurns: Int, maximumSize: Int) {
        self.init(maximumTurns: maximumTurns, maximumSize: maximumSize)
        for turn in (json.array ?? []).suffix(maximumTurns) {
            guard let user = turn[0]?.string, let answer = turn[1]?.string else { continue }
            append(user: user, answer: answer)
        }
    }
}

/// Builds the request body of a job from its session.
enum GenerationRequest {
    /// - Returns: a chat completion request in OpenAI's form.
    static func body(settings: SessionSettings, history: ChatHistory, text: String, model: String?) -> JSONObject {
        var messages: [JSON] = []
        if let system = settings.systemMessage { messages.append(["role": "system", "content": .string(system)]) }
        messages += history.messages
        messages.append(["role": "user", "content": .string(text)])
        var body = JSONObject()
        body["model"] = model.map(JSON.string)
        body["messages"] = .array(messages)
        if !settings.functions.isEmpty { body["tools"] = .array(settings.functions.map(\.tool)) }
        return body
    }
}
