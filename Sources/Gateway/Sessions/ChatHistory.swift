import Contract
import JSONCodec

/// What was said in a session: turns of a user's message and its answer, bounded in number and in bytes.
struct ChatHistory: Sendable, Hashable {
    struct Turn: Sendable, Hashable {
        var user: String
        /// What had been relayed when the answer ended. Empty: nothing.
        var answer: String

        fileprivate var size: Int { user.utf8.count + answer.utf8.count }
    }

    private(set) var turns: [Turn] = []
    /// Bytes of all texts.
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

    /// As messages of OpenAI's form. An answer of which nothing came is left out: upstreams refuse empty ones.
    var messages: [JSON] {
        turns.flatMap { turn -> [JSON] in
            let user: JSON = ["role": "user", "content": .string(turn.user)]
            return turn.answer.isEmpty ? [user] : [user, ["role": "assistant", "content": .string(turn.answer)]]
        }
    }

    // MARK: in Redis

    var json: JSON { .array(turns.map { [.string($0.user), .string($0.answer)] }) }

    init(stored json: JSON, maximumTurns: Int, maximumSize: Int) {
        self.init(maximumTurns: maximumTurns, maximumSize: maximumSize)
        for turn in (json.array ?? []).suffix(maximumTurns) {
            guard let user = turn[0]?.string, let answer = turn[1]?.string else { continue }
            append(user: user, answer: answer)
        }
    }
}

/// Makes the body that a job carries.
enum ChatRequest {
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
