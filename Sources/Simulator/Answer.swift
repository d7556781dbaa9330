/// One unit of an answer. Each one counts as a token.
enum Piece: Hashable, Sendable {
    /// The text ` r<i>`.
    case reasoning(Int)
    /// The text ` w<i>`.
    case word(Int)
    case text(String)
    /// A part of a tool call. Fragment 0 carries the id and the name, the others carry arguments.
    case toolCall(fragment: Int)

    /// The text of this piece; empty for a tool call.
    var text: String {
        switch self {
        case .reasoning(let index): " r\(index)"
        case .word(let index): " w\(index)"
        case .text(let text): text
        case .toolCall: ""
        }
    }
}

/// A function call whose arguments are split into fragments the way models split them.
struct SimulatedToolCall: Hashable, Sendable {
    var name: String
    /// Whether the call ends in the middle of its arguments.
    let isCut: Bool
    let fragments: [String]

    init(name: String, isCut: Bool = false) {
        self.name = name
        self.isCut = isCut
        let whole = [#"{"city": "H"#, #"angzhou 杭州","#, #" "days": 3, "note": "say \"hi\""#, #""}"#]
        fragments = isCut ? Array(whole.prefix(2)) : whole
    }

    /// Number of pieces: one for the id and name, and one for each fragment of the arguments.
    var pieces: Int { fragments.count + 1 }
    /// The part of the arguments in a fragment; empty for fragment 0.
    func arguments(of fragment: Int) -> String { fragment == 0 ? "" : fragments[fragment - 1] }
    /// All arguments. Valid JSON, unless the call is cut.
    var arguments: String { fragments.joined() }
}

/// The complete content of an answer: reasoning, then text, then a tool call.
struct Answer: Sendable {
    /// The text, by its pieces.
    enum Body: Sendable {
        /// The words ` w<first>` up to but not including ` w<end>`.
        case counted(Range<Int>)
        case readable([String])
    }

    /// Number of reasoning pieces before the text.
    var reasoning = 0
    var body: Body
    var toolCall: SimulatedToolCall?
    /// Whether the answer ends because the client's token limit is reached.
    private(set) var isCut = false

    static let reasoningTokens = 3

    /// Number of pieces of the text.
    var textCount: Int {
        switch body {
        case .counted(let range): range.count
        case .readable(let pieces): pieces.count
        }
    }
    /// Number of all pieces.
    var count: Int { reasoning + textCount + (toolCall?.pieces ?? 0) }

    /// - Parameter index: 0..<`count`.
    func piece(at index: Int) -> Piece {
        if index < reasoning { return .reasoning(index) }
        let position = index - reasoning
        switch body {
        case .counted(let range) where position < range.count: return .word(range.lowerBound + position)
        case .readable(let pieces) where position < pieces.count: return .text(pieces[position])
        default: return .toolCall(fragment: position - textCount)
        }
    }

    /// The answer of a scripted model. With a prefix, it continues after the last word of the prefix.
    init(script: ModelScript, prefix: String?, toolName: String?) {
        let first = min(prefix.flatMap(Self.tokenAfter) ?? 0, script.tokens)
        body = .counted(first..<script.tokens)
        if script.reasoning { reasoning = Self.reasoningTokens }
        if script.toolCall { toolCall = SimulatedToolCall(name: toolName ?? "get_weather", isCut: script.tokenLimit) }
        isCut = script.tokenLimit
    }

    /// An answer of `count` words without reasoning or tool call.
    init(words count: Int) { body = .counted(0..<count) }

    /// A paragraph, piece by piece. If the prefix is the start of the paragraph, only the rest is sent.
    /// - Parameter limit: Maximum number of tokens that the client asked for.
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

    /// The number after that of the last ` w<i>` in a text; nil if there is none. Bounded by `ModelScript.maximumTokens` + 1.
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
    /// The content of the first `total` pieces. The tool call is included only with its last fragment.
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
