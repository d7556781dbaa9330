import Contract
import JSONCodec

/// The conversation of a session: turns of a user's message and its answer, limited in number and bytes. Drops the oldest turns first.
struct ChatHistory: Sendable, Hashable {
    /// A function call of the model, with its result as text; nil while there is none.
    struct Call: Sendable, Hashable {
        var id: String
        var name: String
        /// JSON text.
        var arguments: String
        var result: String?

        fileprivate var size: Int { id.utf8.count + name.utf8.count + arguments.utf8.count + (result?.utf8.count ?? 0) }
    }

    struct Turn: Sendable, Hashable {
        /// Empty for a turn that answers function results.
        var user: String
        /// The text relayed by the end of the request. May be partial or empty.
        var text: String
        /// How much of the text the user heard, in bytes of UTF-8; nil: all of it.
        var heard: Int?
        /// The calls that the model made in this turn.
        var calls: [Call] = []
        /// Calls of earlier turns whose results came late. They are repeated with their results before the answer.
        var restated: [Call] = []
        /// The request and what it spoke, as long as PLAYED may refer to it.
        var requestID: String?
        var spoken = SpokenText()

        /// The answer as the conversation continues: what the user has heard of it.
        var answer: String { heard.map { String(decoding: text.utf8.prefix($0), as: UTF8.self) } ?? text }

        fileprivate var size: Int {
            user.utf8.count + text.utf8.count + 24 * spoken.sentences.count
                + (calls + restated).reduce(0) { $0 + $1.size }
        }

        /// The turn as OpenAI chat messages. Empty answers are left out, because upstreams reject them; every call has a result, because
        /// upstreams reject a call without one.
        var messages: [JSON] {
            var messages: [JSON] = []
            if !user.isEmpty { messages.append(["role": "user", "content": .string(user)]) }
            if !restated.isEmpty { messages += Self.messages(of: restated, answer: "") }
            if !calls.isEmpty {
                messages += Self.messages(of: calls, answer: answer)
            } else if !answer.isEmpty {
                messages.append(["role": "assistant", "content": .string(answer)])
            }
            return messages
        }

        private static func messages(of calls: [Call], answer: String) -> [JSON] {
            let list = calls.map { call -> JSON in
                [
                    "id": .string(call.id), "type": "function",
                    "function": ["name": .string(call.name), "arguments": .string(call.arguments)],
                ]
            }
            let content: JSON = answer.isEmpty ? .null : .string(answer)
            let message: JSON = ["role": "assistant", "content": content, "tool_calls": .array(list)]
            return [message]
                + calls.map { ["role": "tool", "tool_call_id": .string($0.id), "content": .string($0.result ?? ChatHistory.noResult)] }
        }
    }

    /// The result of a call that was interrupted or ignored.
    static let noResult = #"{"error":"no result"}"#
    /// Number of turns whose speech is kept for PLAYED.
    private static let spokenTurns = 4

    private(set) var turns: [Turn] = []
    /// Bytes of all texts, in UTF-8.
    private(set) var size = 0
    private let maximumTurns: Int
    private let maximumSize: Int

    init(maximumTurns: Int, maximumSize: Int) {
        self.maximumTurns = maximumTurns
        self.maximumSize = maximumSize
    }

    mutating func append(user: String, answer: String) { append(Turn(user: user, text: answer)) }

    mutating func append(_ turn: Turn) {
        guard maximumTurns > 0 else { return }
        turns.append(turn)
        size += turn.size
        if turns.count > Self.spokenTurns {
            let index = turns.count - Self.spokenTurns - 1
            change(index) {
                $0.requestID = nil
                $0.spoken = SpokenText()
            }
        }
        trim()
    }

    /// Drops the oldest turns until the limits hold. A turn that answers function results is dropped with the turn of their calls.
    private mutating func trim() {
        var excess = 0
        while excess < turns.count,
            turns.count - excess > maximumTurns || size > maximumSize || excess > 0 && turns[excess].user.isEmpty
        {
            size -= turns[excess].size
            excess += 1
        }
        turns.removeFirst(excess)
    }

    private mutating func change(_ index: Int, _ body: (inout Turn) -> Void) {
        size -= turns[index].size
        body(&turns[index])
        size += turns[index].size
    }

    var messages: [JSON] { turns.flatMap(\.messages) }

    /// Cuts the answer of a request to what the user has heard.
    /// - Parameter milliseconds: how much of its audio was played.
    /// - Returns: whether the request is known and had a voice.
    mutating func played(_ requestID: String, milliseconds: Int) -> Bool {
        guard let index = turns.lastIndex(where: { $0.requestID == requestID }) else { return false }
        turns[index].played(milliseconds)
        return true
    }

    // MARK: function results

    /// The call with this id that was made last, and its turn; nil when there is none.
    func call(_ id: String) -> (turn: Int, call: Call)? {
        for (index, turn) in turns.enumerated().reversed() {
            if let call = turn.calls.last(where: { $0.id == id }) { return (index, call) }
        }
        return nil
    }

    /// Records the result of a call in the last turn.
    mutating func setResult(_ result: String, of id: String) {
        guard let last = turns.indices.last else { return }
        change(last) { $0.setResult(result, of: id) }
        trim()
    }

    // MARK: in Redis

    /// An array of `[user, answer]`, with an object of further members as the third element where there are any.
    var json: JSON { .array(turns.map(\.json)) }

    /// Restores a stored history. Malformed turns are skipped.
    init(stored json: JSON, maximumTurns: Int, maximumSize: Int) {
        self.init(maximumTurns: maximumTurns, maximumSize: maximumSize)
        for json in (json.array ?? []).suffix(maximumTurns) { if let turn = Turn(stored: json) { append(turn) } }
    }
}

extension ChatHistory.Turn {
    /// Cuts the answer to what the user has heard of it.
    mutating func played(_ milliseconds: Int) {
        let bytes = spoken.heard(of: text, milliseconds: milliseconds)
        heard = bytes < text.utf8.count ? bytes : nil
    }

    mutating func setResult(_ result: String, of id: String) {
        for index in calls.indices where calls[index].id == id { calls[index].result = result }
    }

    fileprivate var json: JSON {
        var more = JSONObject()
        if heard != nil { more["text"] = .string(text) }
        if !calls.isEmpty { more["calls"] = .array(calls.map(\.json)) }
        if !restated.isEmpty { more["restated"] = .array(restated.map(\.json)) }
        if !spoken.isEmpty {
            more["request"] = requestID.map(JSON.string)
            more["spoken"] = spoken.json
        }
        let pair: [JSON] = [.string(user), .string(answer)]
        return .array(more.members.isEmpty ? pair : pair + [.object(more)])
    }

    /// Restores a stored turn; nil when it is malformed.
    fileprivate init?(stored json: JSON) {
        guard let user = json[0]?.string, let answer = json[1]?.string else { return nil }
        self.init(user: user, text: answer)
        guard let more = json[2]?.object else { return }
        if let text = more["text"]?.string, text.utf8.starts(with: answer.utf8) {
            self.text = text
            heard = answer.utf8.count
        }
        calls = (more["calls"]?.array ?? []).compactMap(ChatHistory.Call.init)
        restated = (more["restated"]?.array ?? []).compactMap(ChatHistory.Call.init)
        requestID = more["request"]?.string
        spoken = SpokenText(stored: more["spoken"] ?? .null)
    }
}

extension ChatHistory.Call {
    /// A model's call. Some upstreams give no id; arguments that are not JSON are replaced, because upstreams reject them.
    init(_ call: ToolCall) {
        self.init(
            id: call.callID.isEmpty ? "call-\(call.index)" : call.callID, name: call.name,
            arguments: (try? JSON(parsing: call.arguments)) == nil ? "{}" : call.arguments)
    }

    /// `[id, name, arguments, result]`.
    fileprivate var json: JSON { [.string(id), .string(name), .string(arguments), result.map(JSON.string) ?? .null] }

    fileprivate init?(_ json: JSON) {
        guard let id = json[0]?.string, let name = json[1]?.string, let arguments = json[2]?.string else { return nil }
        self.init(id: id, name: name, arguments: arguments, result: json[3]?.string)
    }
}
