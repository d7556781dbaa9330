import Contract
import JSONCodec

/// Which part of an answer's text its audio speaks: the sentences with the length of their audio. Finds out how much of the text was heard.
struct SpokenText: Sendable, Hashable {
    /// A spoken sentence.
    struct Sentence: Sendable, Hashable {
        /// Offsets in the answer, in bytes of UTF-8. The end is 0 when the event does not state it.
        var start: Int
        var end: Int
        /// Length of the audio so far, in samples of `Audio.sampleRate`.
        var samples: Int
    }

    /// Maximum sentences kept; later audio counts for the last one.
    private static let maximumCount = 1_000
    /// Estimated length of audio that was not synthesized completely, in milliseconds per character.
    private static let alphabeticMilliseconds = 65
    private static let ideographicMilliseconds = 200
    /// Audio of which less than this is missing counts as heard completely, in milliseconds.
    private static let tolerance = 20

    private(set) var sentences: [Sentence] = []
    /// Whether the audio is complete.
    private(set) var isComplete = false

    var isEmpty: Bool { sentences.isEmpty }

    init() {}

    /// Adds the audio of one event.
    mutating func receive(_ audio: Audio) {
        if audio.last { isComplete = true }
        let samples = Self.samples(inBase64: audio.data)
        guard samples > 0 else { return }
        let start = audio.textOffset ?? sentences.last?.start ?? 0
        let isNew = sentences.last.map { $0.start < start } ?? true
        if isNew, sentences.count < Self.maximumCount {
            sentences.append(Sentence(start: start, end: audio.textEnd ?? 0, samples: samples))
        } else if !sentences.isEmpty {
            sentences[sentences.count - 1].samples += samples
        }
    }

    /// The number of 16-bit samples in padded base64.
    private static func samples(inBase64 text: String) -> Int {
        let padding = text.utf8.suffix(2).count { $0 == UInt8(ascii: "=") }
        return (text.utf8.count / 4 * 3 - padding) / 2
    }

    /// How much of the answer was heard.
    /// - Parameter milliseconds: how much of the audio was played.
    /// - Returns: bytes of UTF-8; ends at the end of a word.
    func heard(of answer: String, milliseconds: Int) -> Int {
        guard milliseconds > 0 else { return 0 }
        var left = milliseconds
        for (index, sentence) in sentences.enumerated() {
            let next = index + 1 < sentences.count ? sentences[index + 1].start : nil
            let isWhole = next != nil || isComplete
            let end = sentence.end > sentence.start ? sentence.end : next ?? answer.utf8.count
            var length = sentence.samples * 1_000 / Audio.sampleRate
            if !isWhole { length = max(length, Self.estimate(answer, sentence.start..<max(end, sentence.start))) }
            if left + Self.tolerance < length {
                return Self.wordEnd(answer, sentence.start..<max(end, sentence.start), share: Double(left) / Double(length))
            }
            if next == nil { return isComplete ? answer.utf8.count : min(end, answer.utf8.count) }
            left -= length
        }
        return 0
    }

    private static func characters(_ answer: String, _ range: Range<Int>) -> Substring {
        let utf8 = answer.utf8
        let start = utf8.index(utf8.startIndex, offsetBy: range.lowerBound, limitedBy: utf8.endIndex) ?? utf8.endIndex
        let end = utf8.index(utf8.startIndex, offsetBy: range.upperBound, limitedBy: utf8.endIndex) ?? utf8.endIndex
        return answer[start..<end]
    }

    /// The estimated length of a text's audio in milliseconds.
    private static func estimate(_ answer: String, _ range: Range<Int>) -> Int {
        characters(answer, range).reduce(0) { $0 + (isIdeographic($1) ? ideographicMilliseconds : alphabeticMilliseconds) }
    }

    /// Characters of scripts that are written without spaces between words.
    private static func isIdeographic(_ character: Character) -> Bool {
        character.unicodeScalars.first.map { $0.value >= 0x2E80 } ?? false
    }

    /// The end of the last word that lies completely within the first `share` of a sentence, in bytes from the start of the answer.
    private static func wordEnd(_ answer: String, _ range: Range<Int>, share: Double) -> Int {
        let sentence = characters(answer, range)
        let total = estimate(answer, range)
        let limit = share * Double(total)
        var duration = 0
        var bytes = range.lowerBound
        var end = range.lowerBound
        for character in sentence {
            if character.isWhitespace { end = bytes }
            duration += isIdeographic(character) ? ideographicMilliseconds : alphabeticMilliseconds
            guard Double(duration) <= limit else { break }
            bytes += character.utf8.count
            if isIdeographic(character) { end = bytes }
        }
        return end
    }

    // MARK: in Redis

    /// `[complete, start, end, samples, start, end, samples, …]`.
    var json: JSON { .array([.bool(isComplete)] + sentences.flatMap { [.integer($0.start), .integer($0.end), .integer($0.samples)] }) }

    /// Restores a stored value. Malformed numbers end it.
    init(stored json: JSON) {
        let values = json.array ?? []
        isComplete = values.first?.bool ?? false
        for index in stride(from: 1, to: values.count - 2, by: 3).prefix(Self.maximumCount) {
            guard let start = values[index].count, let end = values[index + 1].count, let samples = values[index + 2].count,
                start < 1 << 32, end < 1 << 32, samples < 1 << 40
            else { return }
            sentences.append(Sentence(start: start, end: end, samples: samples))
        }
    }
}
