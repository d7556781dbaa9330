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

    /// Characters that were not yet handed out, from `start` on; those before it are removed at the end of each call.
    private var text: [Character] = []
    /// Where the piece that is being judged begins in `text`.
    private var start = 0
    /// The next character to be judged; this and the following are counted from `start`.
    private var position = 0
    /// Behind the last white space before `position`; 0 when there is none.
    private var afterSpace = 0
    /// Where the word of ASCII begins that ends before `position`.
    private var wordStart = 0
    /// This word began as a link.
    private var isLink = false
    /// Characters looked at or moved so far, each as often as it was: proportional to the text, whatever stands in it.
    private(set) var steps = 0

    private var count: Int { text.count - start }
    private func character(_ index: Int) -> Character { text[start + index] }

    private enum Verdict { case goOn, cut, wait }

    /// - Returns: the sentences that are complete now.
    mutating func feed(_ text: String) -> [String] {
        self.text.append(contentsOf: text)
        return cut(isWhole: false)
    }

    /// The text is complete: what is left is a sentence, too.
    mutating func finish() -> [String] {
        var sentences = cut(isWhole: true)
        if count > 0 { sentences.append(take(count)) }
        text.removeAll()
        start = 0
        return sentences
    }

    private mutating func cut(isWhole: Bool) -> [String] {
        var sentences: [String] = []
        // One removal a call: one for each sentence would move all that follows each time.
        defer {
            if start > 0 { steps += count }
            text.removeFirst(start)
            start = 0
        }
        while position < count {
            steps += 1
            if position >= Self.limit, let length = overflow() {
                sentences.append(take(length))
                continue
            }
            switch judge(position, isWhole: isWhole) {
            case .goOn: pass()
            case .cut: sentences.append(take(position + 1))
            case .wait: return sentences
            }
        }
        return sentences
    }

    private mutating func take(_ length: Int) -> String {
        let sentence = String(text[start..<start + length])
        start += length
        position = 0
        afterSpace = 0
        wordStart = 0
        isLink = false
        return sentence
    }

    /// Goes on to the next character.
    private mutating func pass() {
        let character = character(position)
        position += 1
        if character.isWhitespace { afterSpace = position }
        guard Self.isOfWord(character) else {
            wordStart = position
            isLink = false
            return
        }
        if !isLink { isLink = wordEnds(with: "://") || wordEnds(with: "www.") }
    }

    private func wordEnds(with mark: StaticString) -> Bool {
        let length = mark.utf8CodeUnitCount
        guard position - wordStart >= length else { return false }
        for index in 0..<length where character(position - length + index).asciiValue != mark.utf8Start[index] { return false }
        return true
    }

    /// Among characters that need no spaces a word of ASCII is kept whole.
    private static func isOfWord(_ character: Character) -> Bool { character.isASCII && !character.isWhitespace }

    private mutating func judge(_ index: Int, isWhole: Bool) -> Verdict {
        let character = character(index)
        let next = index + 1 < count ? self.character(index + 1) : nil
        switch character {
        case "。", "！", "？": return .cut
        case "!", "?":
            guard isLink else { return .cut }
            guard let next else { return isWhole ? .cut : .wait }
            return next.isWhitespace ? .cut : .goOn
        case ".":
            guard let next else { return isWhole ? .cut : .wait }
            return endsSentence(fullStop: index, before: next) ? .cut : .goOn
        case "，", "；", "、": return index + 1 >= Self.weakFrom ? .cut : .goOn
        case ",", ";":
            guard index + 1 >= Self.weakFrom else { return .goOn }
            guard isLink || self.character(index - 1).isNumber else { return .cut }
            guard let next else { return isWhole ? .cut : .wait }
            return next.isASCII && !next.isWhitespace ? .goOn : .cut
        default: return character.isNewline ? .cut : .goOn
        }
    }

    /// Whether a full stop is one, and not part of a number, an abbreviation, a name or a row of dots.
    private mutating func endsSentence(fullStop index: Int, before next: Character) -> Bool {
        guard next.isWhitespace || !next.isASCII || Self.closers.contains(next) else { return false }
        let first = index - text[start..<start + index].reversed().prefix { $0.isASCII && $0.isLetter || $0 == "." }.count
        let word = String(text[start + first..<start + index]).lowercased()
        steps += index - first
        if Self.abbreviations.contains(word) { return false }
        // Initials, "J. Smith", and the like of "U.S."; but "I." is a word.
        let parts = word.split(separator: ".", omittingEmptySubsequences: false)
        if word != "i", !word.isEmpty, parts.allSatisfy({ $0.count == 1 }) { return false }
        // The number of a list's item belongs to what follows it.
        let before = text[start..<start + index].drop { $0.isWhitespace }
        steps += index - before.count
        let digits = before.prefix { $0.isNumber }.count
        steps += digits
        return before.isEmpty || digits < before.count
    }

    /// How much of a piece that has grown too long is cut off; nil to wait for the end of a word that fills it.
    private func overflow() -> Int? {
        let next = character(position)
        if position == Self.limit {
            if next.isWhitespace { return position }
            if afterSpace > 0 { return afterSpace }
            // A word that began within the piece goes to the next one.
            guard Self.isOfWord(next), wordStart < position else { return position }
            return wordStart > 0 ? wordStart : nil
        }
        // Up to here the piece is one word.
        return Self.isOfWord(next) && position < Self.wordLimit ? nil : position
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
