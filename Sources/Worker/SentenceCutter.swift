/// Cuts a text into sentences while it is being written, in Chinese and English, so that each can be spoken before the next is there.
///
/// Pieces joined are the text, and they do not depend on how the text was sliced. A mark that may stand inside a number, an abbreviation or
/// a link is judged only when the character behind it is known; every other strong mark ends its sentence at once.
struct SentenceCutter {
    /// Characters from which on a comma or semicolon ends a piece.
    static let weakFrom = 15
    /// Characters without any mark after which a piece ends at its last space, or there and then.
    static let limit = 60
    /// A single word, a link mostly, is kept whole up to here.
    static let wordLimit = 300

    private var piece: [Character] = []
    /// The next character to be judged.
    private var position = 0

    private enum Verdict { case goOn, cut, wait }

    /// - Returns: the sentences that are complete now.
    mutating func feed(_ text: String) -> [String] {
        piece.append(contentsOf: text)
        return cut(isWhole: false)
    }

    /// The text is complete: what is left is a sentence, too.
    mutating func finish() -> [String] {
        var sentences = cut(isWhole: true)
        if !piece.isEmpty { sentences.append(take(piece.count)) }
        return sentences
    }

    private mutating func cut(isWhole: Bool) -> [String] {
        var sentences: [String] = []
        while position < piece.count {
            if position >= Self.limit, let length = overflow() {
                sentences.append(take(length))
                continue
            }
            switch judge(position, isWhole: isWhole) {
            case .goOn: position += 1
            case .cut: sentences.append(take(position + 1))
            case .wait: return sentences
            }
        }
        return sentences
    }

    private mutating func take(_ length: Int) -> String {
        let sentence = String(piece[..<length])
        piece.removeFirst(length)
        position = 0
        return sentence
    }

    private func judge(_ index: Int, isWhole: Bool) -> Verdict {
        let character = piece[index]
        let next = index + 1 < piece.count ? piece[index + 1] : nil
        switch character {
        case "。", "！", "？": return .cut
        case "!", "?":
            guard isInLink(index) else { return .cut }
            guard let next else { return isWhole ? .cut : .wait }
            return next.isWhitespace ? .cut : .goOn
        case ".":
            guard let next else { return isWhole ? .cut : .wait }
            return endsSentence(fullStop: index, before: next) ? .cut : .goOn
        case "，", "；", "、": return index + 1 >= Self.weakFrom ? .cut : .goOn
        case ",", ";":
            guard index + 1 >= Self.weakFrom else { return .goOn }
            guard isInLink(index) || piece[index - 1].isNumber else { return .cut }
            guard let next else { return isWhole ? .cut : .wait }
            return next.isASCII && !next.isWhitespace ? .goOn : .cut
        default: return character.isNewline ? .cut : .goOn
        }
    }

    /// Whether a full stop is one, and not part of a number, an abbreviation, a name or a row of dots.
    private func endsSentence(fullStop index: Int, before next: Character) -> Bool {
        guard next.isWhitespace || !next.isASCII || Self.closers.contains(next) else { return false }
        var start = index
        while start > 0, piece[start - 1].isLetter && piece[start - 1].isASCII || piece[start - 1] == "." { start -= 1 }
        let word = String(piece[start..<index]).lowercased()
        if Self.abbreviations.contains(word) { return false }
        // Initials, "J. Smith", and the like of "U.S."; but "I." is a word.
        let parts = word.split(separator: ".", omittingEmptySubsequences: false)
        if word != "i", !word.isEmpty, parts.allSatisfy({ $0.count == 1 }) { return false }
        // The number of a list's item belongs to what follows it.
        let before = piece[..<index].drop(while: \.isWhitespace)
        return before.isEmpty || !before.allSatisfy(\.isNumber)
    }

    /// Whether the word that this character stands in began as a link.
    private func isInLink(_ index: Int) -> Bool {
        var start = index
        while start > 0, piece[start - 1].isASCII, !piece[start - 1].isWhitespace { start -= 1 }
        let word = String(piece[start..<index])
        return word.contains("://") || word.contains("www.")
    }

    /// How much of a piece that has grown too long is cut off; nil to wait for the end of a word that fills it.
    private func overflow() -> Int? {
        if piece[Self.limit].isWhitespace, position == Self.limit { return Self.limit }
        if let space = piece[..<Self.limit].lastIndex(where: \.isWhitespace) { return space + 1 }
        // Among characters that need no spaces a word of ASCII is kept whole.
        func isOfWord(_ character: Character) -> Bool { character.isASCII && !character.isWhitespace }
        guard isOfWord(piece[Self.limit]), isOfWord(piece[Self.limit - 1]) else { return Self.limit }
        var start = Self.limit
        while start > 0, isOfWord(piece[start - 1]) { start -= 1 }
        if start > 0 { return start }
        guard !isOfWord(piece[position]) || position >= Self.wordLimit else { return nil }
        return position
    }

    private static let closers: Set<Character> = ["\"", "'", ")", "]", "}"]
    private static let abbreviations: Set<String> = [
        "mr", "mrs", "ms", "dr", "prof", "st", "mt", "sr", "jr", "rev", "hon", "gen", "col", "sgt", "capt", "lt", "vs", "etc", "approx",
        "fig", "figs", "vol", "no", "nos",
        "pp", "ed", "eds", "inc", "ltd", "co", "corp", "dept", "est", "al", "cf", "ca", "ave", "blvd", "ph.d",
    ]
}

extension SentenceCutter {
    /// The sentence as it is to be spoken; nil when nothing in it can be: a rule, a row of stars, a lone bracket.
    static func spoken(_ sentence: String) -> String? {
        guard sentence.contains(where: { $0.isLetter || $0.isNumber }) else { return nil }
        guard let start = sentence.firstIndex(where: { !$0.isWhitespace }), let end = sentence.lastIndex(where: { !$0.isWhitespace }) else {
            return nil
        }
        return String(sentence[start...end])
    }
}
