/// Estimates the number of tokens of a text, piece by piece and without a tokenizer.
///
/// The costs of words, numbers and marks were fitted to `o200k_base` (OpenAI). For ordinary text in the languages of the tests the estimate differs by at
/// most 15 % from it, however the text is divided. For the tokenizers of Qwen and DeepSeek it differs by at most 30 %, except for Hindi and numbers, where
/// they count up to three times as many tokens. A word of the simulator is one token. One pass over the bytes without an allocation.
///
/// `usage.lua` has the same rule, for jobs whose worker was lost.
package struct TokenEstimator: Sendable, Equatable {
    /// Costs in sixteenths of a token.
    private enum Cost {
        /// A word of up to `shortWord` letters, and each further letter.
        static let word = 16
        static let furtherLetter = 8
        /// Added for a Latin letter with an accent, and for one of Vietnamese or of a script that is as rare.
        static let accent = 16
        static let rareLetter = 4
        /// Words of other scripts: up to `short` letters, and each further letter.
        static let cyrillic = (word: 23, short: 3, letter: 2)
        static let semitic = (word: 23, short: 2, letter: 2)
        static let indic = (word: 9, short: 2, letter: 8)
        static let hangul = 13
        /// An ideograph, a kana, or a mark beyond ASCII.
        static let wide = 12
        static let emoji = 32
        /// Up to three digits. A blank before a number is a token.
        static let digits = 16
        /// The first mark of several, after a digit and elsewhere, and each further one.
        static let mark = 11
        static let markAfterDigit = 16
        static let furtherMark = 3
        /// Several blanks, such as an indentation. A single one is part of the word after it.
        static let blanks = 16
    }

    private static let shortWord = 7

    private enum Run: UInt8 {
        case none, word, digits, marks, blanks, cyrillic, semitic, indic, wide
    }

    private var run = Run.none
    /// Characters of the current run.
    private var length = 0
    private var endsLowercase = false
    /// The estimate in sixteenths of a token.
    package private(set) var sixteenths = 0
    /// Number of words that follow a blank, a line break or nothing. No tokenizer makes fewer tokens.
    package private(set) var words = 0

    package init() {}

    /// The estimate, rounded up.
    package var tokens: Int { Self.tokens(sixteenths) }

    package static func tokens(_ sixteenths: Int) -> Int { sixteenths / 16 + (sixteenths % 16 > 0 ? 1 : 0) }

    /// Counts the next piece of a text. A word may be split between pieces.
    package mutating func add(_ text: String) {
        for byte in text.utf8 { add(byte) }
    }

    private mutating func add(_ byte: UInt8) {
        switch byte {
        case 0x80..<0xC0: break  // A character counts by its first byte.
        case UInt8(ascii: "a")...UInt8(ascii: "z"): addLetter(isUppercase: false)
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): addLetter(isUppercase: true)
        case UInt8(ascii: "0")...UInt8(ascii: "9"): addDigit()
        case UInt8(ascii: " "), UInt8(ascii: "\t"):
            if advance(.blanks) == 2 { add(cost: Cost.blanks) }
        case 0x21..<0x7F, 0xC2:
            if run == .digits {
                run = .none
                add(cost: Cost.markAfterDigit - Cost.mark)
            }
            add(cost: advance(.marks) == 1 ? Cost.mark : Cost.furtherMark)
        case 0..<0x80: run = .none
        case 0xC3...0xCB:
            addLetter(isUppercase: false)
            add(cost: Cost.accent)
        case 0xE1:
            addLetter(isUppercase: false)
            add(cost: Cost.rareLetter)
        case 0xCC...0xD5: add(.cyrillic, Cost.cyrillic)
        case 0xD6...0xDF: add(.semitic, Cost.semitic)
        case 0xE0: add(.indic, Cost.indic)
        case 0xEA...0xED: addWide(Cost.hangul)
        case 0xF0...: addWide(Cost.emoji)
        default: addWide(Cost.wide)
        }
    }

    /// Continues the current run, or begins another one.
    /// - Returns: its length.
    private mutating func advance(_ next: Run) -> Int {
        length = run == next ? length + 1 : 1
        run = next
        return length
    }

    private mutating func add(cost: Int) { sixteenths += cost }

    private mutating func addLetter(isUppercase: Bool) {
        let isSeparate = run == .none || run == .blanks
        // A capital in the middle of a word begins another one: `findUser`.
        if isUppercase, endsLowercase { run = .none }
        let letters = advance(.word)
        if letters == 1 { add(cost: Cost.word) } else if letters > Self.shortWord { add(cost: Cost.furtherLetter) }
        if isSeparate, letters == 1 { words += 1 }
        endsLowercase = !isUppercase
    }

    private mutating func addDigit() {
        if run == .word {
            if advance(.word) > Self.shortWord { add(cost: Cost.furtherLetter) }
            endsLowercase = false
        } else {
            if run == .blanks { add(cost: Cost.digits) }
            if advance(.digits) % 3 == 1 { add(cost: Cost.digits) }
        }
    }

    private mutating func add(_ script: Run, _ cost: (word: Int, short: Int, letter: Int)) {
        let isSeparate = run == .none || run == .blanks
        let letters = advance(script)
        if letters == 1 { add(cost: cost.word) } else if letters > cost.short { add(cost: cost.letter) }
        if isSeparate, letters == 1 { words += 1 }
    }

    private mutating func addWide(_ cost: Int) {
        run = .wide
        add(cost: cost)
    }
}
