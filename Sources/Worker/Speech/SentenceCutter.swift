/// Splits streamed Chinese and English text into sentences, so that each can be synthesized while the next is still being generated.
///
/// The concatenated pieces equal the text, and they do not depend on how the text was chunked. A mark that can be part of a number, an
/// abbreviation or a link is decided only when the following character is known; every other strong mark ends its sentence at once.
struct SentenceCutter {
    /// Minimum length of a piece, in characters, that a comma or semicolon ends.
    static let weakMarkMinimum = 15
    /// Minimum length of the first piece that a comma or semicolon ends, so that speech starts early. Characters written without spaces count
    /// twice, because they take longer to say.
    static let firstClauseMinimum = 12
    /// Maximum length of a piece without a mark, in characters. It is then cut at its last space, or at the limit.
    static let limit = 60
    /// Maximum length of a single word (usually a link), in characters.
    static let wordLimit = 300

    /// Characters not returned yet, from `start` on. Those before it are removed at the end of each call.
    private var text: [Character] = []
    /// Start of the current piece in `text`.
    private var start = 0
    /// Whether no piece was cut yet.
    private var isFirst = true
    /// Length of the first piece so far, as `firstClauseMinimum` counts it.
    private var firstLength = 0
    /// The next character to examine. This index and the following ones are relative to `start`.
    private var position = 0
    /// Index after the last white space before `position`; 0 if there is none.
    private var afterSpace = 0
    /// Start of the ASCII word that ends before `position`.
    private var wordStart = 0
    /// Whether this word is a link.
    private var isLink = false
    /// Number of character visits and moves so far. Tests use it to check that the work is proportional to the text.
    private(set) var steps = 0

    private var count: Int { text.count - start }
    private func character(_ index: Int) -> Character { text[start + index] }

    /// The result of examining a character: continue, cut after it, or wait for the next one.
    private enum Verdict { case goOn, cut, wait }

    /// Adds text.
    /// - Returns: the sentences that are complete now.
    mutating func feed(_ text: String) -> [String] {
        self.text.append(contentsOf: text)
        return cut(isWhole: false)
    }

    /// Ends the text.
    /// - Returns: the remaining sentences; an incomplete one is included.
    mutating func finish() -> [String] {
        var sentences = cut(isWhole: true)
        if count > 0 { sentences.append(take(count)) }
        text.removeAll()
        start = 0
        return sentences
    }

    private mutating func cut(isWhole: Bool) -> [String] {
        var sentences: [String] = []
        // One removal per call: a removal per sentence would move the rest of the text each time.
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

    /// Returns the first characters as a piece and starts the next one.
    private mutating func take(_ length: Int) -> String {
        let sentence = String(text[start..<start + length])
        start += length
        isFirst = false
        position = 0
        afterSpace = 0
        wordStart = 0
        isLink = false
        return sentence
    }

    /// Accepts the current character and moves to the next one.
    private mutating func pass() {
        let character = character(position)
        position += 1
        if isFirst { firstLength += Self.weight(character) }
        if character.isWhitespace { afterSpace = position }
        guard Self.isOfWord(character) else {
            wordStart = position
            isLink = false
            return
        }
        if !isLink { isLink = Self.linkMarks.contains(where: wordEnds) }
    }

    /// The texts that make a word a link.
    private static let linkMarks = [Array("://".utf8), Array("www.".utf8)]

    /// Whether the current word ends with this ASCII text.
    private func wordEnds(with mark: [UInt8]) -> Bool {
        guard position - wordStart >= mark.count else { return false }
        for index in mark.indices where character(position - mark.count + index).asciiValue != mark[index] { return false }
        return true
    }

    /// Whether the character belongs to an ASCII word. Such words are not split, even among characters that are written without spaces.
    private static func isOfWord(_ character: Character) -> Bool { character.isASCII && !character.isWhitespace }

    /// Decides whether the character at `index` ends a sentence.
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
        case "，", "；", "、": return isLongEnough(index) ? .cut : .goOn
        case ",", ";":
            guard isLongEnough(index) else { return .goOn }
            guard isLink || self.character(index - 1).isNumber else { return .cut }
            guard let next else { return isWhole ? .cut : .wait }
            return next.isASCII && !next.isWhitespace ? .goOn : .cut
        default: return character.isNewline ? .cut : .goOn
        }
    }

    /// Whether a piece that a weak mark at `index` ends is long enough.
    private func isLongEnough(_ index: Int) -> Bool {
        isFirst ? firstLength >= Self.firstClauseMinimum : index + 1 >= Self.weakMarkMinimum
    }

    /// 2 for characters of scripts that are written without spaces between words.
    private static func weight(_ character: Character) -> Int {
        character.unicodeScalars.first.map { $0.value >= 0x2E80 } == true ? 2 : 1
    }

    /// Whether a full stop ends a sentence, and is not part of a number, an abbreviation, a name or an ellipsis.
    private mutating func endsSentence(fullStop index: Int, before next: Character) -> Bool {
        guard next.isWhitespace || !next.isASCII || Self.closers.contains(next) else { return false }
        let first = index - text[start..<start + index].reversed().prefix { $0.isASCII && $0.isLetter || $0 == "." }.count
        let word = String(text[start + first..<start + index]).lowercased()
        steps += index - first
        if Self.abbreviations.contains(word) { return false }
        // Initials ("J. Smith") and abbreviations like "U.S."; but "I." is a word.
        let parts = word.split(separator: ".", omittingEmptySubsequences: false)
        if word != "i", !word.isEmpty, parts.allSatisfy({ $0.count == 1 }) { return false }
        // The number of a list item belongs to the following text.
        let before = text[start..<start + index].drop { $0.isWhitespace }
        steps += index - before.count
        let digits = before.prefix { $0.isNumber }.count
        steps += digits
        return before.isEmpty || digits < before.count
    }

    /// The number of characters to cut off a piece that has become too long; nil to wait for the end of a word that fills it.
    private func overflow() -> Int? {
        let next = character(position)
        if position == Self.limit {
            if next.isWhitespace { return position }
            if afterSpace > 0 { return afterSpace }
            // A word that began within the piece moves to the next one.
            guard Self.isOfWord(next), wordStart < position else { return position }
            return wordStart > 0 ? wordStart : nil
        }
        // The piece is a single word so far.
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
    /// The sentence without surrounding white space; nil when it contains no letter or digit and so cannot be spoken.
    static func spoken(_ sentence: String) -> String? {
        guard sentence.contains(where: { $0.isLetter || $0.isNumber }) else { return nil }
        guard let start = sentence.firstIndex(where: { !$0.isWhitespace }), let end = sentence.lastIndex(where: { !$0.isWhitespace }) else {
            return nil
        }
        return String(sentence[start...end])
    }
}
