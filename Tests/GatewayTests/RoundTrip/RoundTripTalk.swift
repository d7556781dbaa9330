import JSONCodec
import TestSupport

/// A random conversation with a request to the model, in a form that belongs to no API. What an API or a provider cannot express is removed
/// by `RoundTripTalk+Projection`, or refused.
struct RoundTripTalk: Equatable {
    enum Piece: Equatable { case text(String), image(String) }

    enum Item: Equatable {
        case user([Piece])
        case thought(String, signature: String)
        case redacted(String)
        case said(String)
        /// - Parameter arguments: a JSON object.
        case call(id: String, name: String, arguments: JSON)
        case result(id: String, String, isError: Bool)
    }

    struct Tool: Equatable {
        var name: String
        var description: String?
        var schema: JSON
        var strict: Bool?
    }

    enum Choice: Equatable { case auto, none, required, named(String) }

    /// The APIs through which a conversation comes in.
    enum API: CaseIterable { case chat, messages, responses }

    var system = ""
    var items: [Item] = []
    var tools: [Tool] = []
    var choice: Choice?
    var isParallel: Bool?
    var maximumTokens: Int?
    var stop: [String] = []
    var schema: JSON?
    var isJSON = false
    var effort: String?
    /// A JSON number.
    var temperature: String?
    var user: String?
}

extension RoundTripTalk {
    /// A conversation with what an API can express.
    init(_ api: API, _ random: inout SplitMix64) {
        func chance(_ count: Int) -> Bool { Int.random(in: 0..<count, using: &random) == 0 }
        func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }
        func words() -> String {
            let words = ["a", "Hello", "你", "😀", "é", "\"", "\\", "{", "[error]", "\n", "b"]
            return "x" + (0..<number(0...4)).map { _ in words[number(0...words.count - 1)] }.joined() + "y"
        }
        let isMessages = api == .messages
        if chance(2) { system = words() }
        for turn in 0..<number(1...3) {
            var pieces: [Piece] = [.text(words())]
            if chance(4) { pieces.append(.image(chance(2) ? "data:image/png;base64,AAEC" : "https://example.com/\(turn).png")) }
            if chance(5) { pieces.append(.text(words())) }
            items.append(.user(pieces))
            guard chance(2) else { continue }
            if api != .chat, chance(2) { items.append(.thought(words(), signature: "sig\(turn)")) }
            if api != .chat, chance(4) { items.append(.redacted("data\(turn)")) }
            let speaks = chance(2)
            if speaks { items.append(.said(words())) }
            var calls: [String] = []
            for call in 0..<number(0...2) {
                if isMessages, call > 0, chance(3) { items.append(.thought("", signature: "inner\(turn)")) }
                if isMessages, call > 0, chance(3) { items.append(.said(words())) }
                let id = "call_\(turn)_\(call)"
                calls.append(id)
                items.append(.call(id: id, name: chance(2) ? "f" : "g", arguments: chance(2) ? [:] : ["a": [1, .string(words())]]))
            }
            for id in calls { items.append(.result(id: id, words(), isError: isMessages && chance(4))) }
            if calls.isEmpty, !speaks { items.append(.said(words())) }
        }
        // Two questions in a row would become one.
        items = items.enumerated().filter { index, item in
            guard index + 1 < items.count, case .user = item, case .user = items[index + 1] else { return true }
            return false
        }.map(\.element)
        if case .user? = items.last {} else { items.append(.user([.text(words())])) }
        for name in ["f", "g"].prefix(number(0...2)) {
            tools.append(
                Tool(
                    name: name, description: chance(2) ? words() : nil, schema: ["type": "object", "properties": ["a": [:]]],
                    strict: chance(2) ? true : nil))
        }
        if !tools.isEmpty {
            let choices: [Choice?] = [nil, nil, nil, .auto, Choice.none, .required, .named("f")]
            choice = choices[number(0...choices.count - 1)]
            if chance(4), choice != Choice.none { isParallel = isMessages ? false : chance(2) }
            if isMessages, isParallel != nil { choice = choice ?? .auto }
        }
        if isMessages || chance(2) { maximumTokens = number(1...1_000) }
        if api != .responses, chance(3) { stop = [words(), "END"] }
        if chance(4) { schema = ["type": "object", "required": ["a"]] } else if !isMessages, chance(8) { isJSON = true }
        if chance(5) { effort = ["minimal", "low", "medium", "high"][number(0...3)] }
        if chance(3) { temperature = chance(6) ? "1.5" : "0.70" }
        if chance(3) { user = "user-1" }
    }
}

extension RoundTripTalk {
    /// The items in groups: each question or result alone, each answer of the assistant as a whole.
    var groups: [[Item]] {
        var groups: [[Item]] = []
        for item in items {
            switch item {
            case .user, .result: groups.append([item])
            case .thought, .redacted, .said, .call:
                if let last = groups.last?.first, last.isAnswer { groups[groups.count - 1].append(item) } else { groups.append([item]) }
            }
        }
        return groups
    }
}

extension RoundTripTalk.Item {
    var isAnswer: Bool {
        switch self {
        case .user, .result: false
        case .thought, .redacted, .said, .call: true
        }
    }

    var isCall: Bool { if case .call = self { true } else { false } }
}
