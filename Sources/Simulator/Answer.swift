/// One step of an answer; every one of them counts as a token.
enum Piece: Hashable, Sendable {
    /// ` r<i>`
    case reasoning(Int)
    /// ` w<i>`
    case word(Int)
    case text(String)
    /// 0 opens the call with its id and name, those after it add to its arguments.
    case toolCall(fragment: Int)

    /// What a reader sees of it; nothing for a tool call's.
    var text: String {
        switch self {
        case .reasoning(let index): " r\(index)"
        case .word(let index): " w\(index)"
        case .text(let text): text
        case .toolCall: ""
        }
    }
}

/// A call of one function, its arguments cut where a model might cut them.
struct SimulatedToolCall: Hashable, Sendable {
    var name: String
    let fragments = [#"{"city": "H"#, #"angzhou 杭州","#, #" "days": 3, "note": "say \"hi\""#, #""}"#]

    /// One fragment more than arguments: the one that opens the call has none.
    var pieces: Int { fragments.count + 1 }
    func arguments(of fragment: Int) -> String { fragment == 0 ? "" : fragments[fragment - 1] }
    var arguments: String { fragments.joined() }
}

/// All that an answer will say if it is let: reasoning, then text, then a tool call.
struct Answer: Sendable {
    enum Body: Sendable {
        /// The words ` w<first>` up to, not including, ` w<end>`.
        case counted(Range<Int>)
        case readable([String])
    }

    var reasoning = 0
    var body: Body
    var toolCall: SimulatedToolCall?
    /// It ends where the client's limit of tokens is reached.
    private(set) var isCut = false

    static let reasoningTokens = 3

    var textCount: Int {
        switch body {
        case .counted(let range): range.count
        case .readable(let pieces): pieces.count
        }
    }
    var count: Int { reasoning + textCount + (toolCall?.pieces ?? 0) }

    /// - Parameter index: 0 up to, not including, `count`.
    func piece(at index: Int) -> Piece {
        if index < reasoning { return .reasoning(index) }
        let position = index - reasoning
        switch body {
        case .counted(let range) where position < range.count: return .word(range.lowerBound + position)
        case .readable(let pieces) where position < pieces.count: return .text(pieces[position])
        default: return .toolCall(fragment: position - textCount)
        }
    }

    /// The answer of a scripted model. After a prefix it goes on from the token after the prefix's last.
    init(script: ModelScript, prefix: String?, toolName: String?) {
        let first = min(prefix.flatMap(Self.tokenAfter) ?? 0, script.tokens)
        body = .counted(first..<script.tokens)
        if script.reasoning { reasoning = Self.reasoningTokens }
        if script.toolCall { toolCall = SimulatedToolCall(name: toolName ?? "get_weather") }
    }

    /// So many words and nothing else.
    init(words count: Int) { body = .counted(0..<count) }

    /// A paragraph, word by word; of a prefix that is its beginning only the rest.
    /// - Parameter limit: tokens that the client wants at most.
    init(readable pieces: [String], prefix: String?, limit: Int? = nil) {
        var start = 0
        if let prefix, !prefix.isEmpty {
            var rest = prefix[...]
            for (index, piece) in pieces.enumerated() {
                guard rest.hasPrefix(piece) else { break }
                rest.removeFirst(piece.count)
                if rest.isEmpty {
                    start = index + 1
                    break
                }
            }
        }
        let rest = pieces[start...]
        let end = limit.map { max(0, $0) } ?? rest.count
        isCut = end < rest.count
        body = .readable(Array(rest.prefix(end)))
    }

    /// The number after that of the last ` w<i>` in a text; nil if there is none.
    static func tokenAfter(_ prefix: String) -> Int? {
        let bytes = Array(prefix.utf8)
        var end = bytes.count
        while end > 0, bytes[end - 1] &- 0x30 >= 10 { end -= 1 }
        var start = end
        while start > 0, bytes[start - 1] &- 0x30 < 10 { start -= 1 }
        guard start > 0, start < end, bytes[start - 1] == UInt8(ascii: "w") else { return nil }
        return Int(String(decoding: bytes[start..<end], as: UTF8.self)).map { min($0, ModelScript.maximumTokens) + 1 }
    }
}

extension Answer {
    /// What the first `total` pieces say, put together. A tool call counts once its last fragment is among them.
    func said(upTo total: Int) -> (reasoning: String, text: String, toolCall: SimulatedToolCall?) {
        var reasoning = ""
        var text = ""
        for index in 0..<min(total, count) {
            let piece = piece(at: index)
            if case .reasoning = piece { reasoning += piece.text } else { text += piece.text }
        }
        return (reasoning, text, total >= count ? toolCall : nil)
    }
}
