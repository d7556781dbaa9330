import Glibc
import Support

/// The audio of the speech endpoints: a soft tone as PCM, 24 kHz, 16 bits, mono, little-endian.
///
/// Each piece lasts 40 ms and holds a whole number of waves. The number increases with the piece's index and repeats after eight pieces, so
/// a missing piece can be identified.
enum SimulatedVoice {
    static let rate = 24_000
    static let samplesAPiece = 960

    /// The samples of a piece, 1,920 bytes.
    static func piece(_ index: Int) -> [UInt8] { pieces[index % pieces.count] }
    /// The samples of a piece in base64.
    static func base64(_ index: Int) -> [UInt8] { encoded[index % encoded.count] }

    /// The pace for models that are not scripts: pieces are sent twice as fast as they play.
    static let script: ModelScript = {
        var script = ModelScript()
        script.firstDelay = 100_000_000
        script.gap = 20_000_000
        return script
    }()

    /// Number of pieces for a text: 70 ms for each letter and 200 ms for each Chinese character; at least one piece.
    static func pieces(for text: String) -> Int {
        let milliseconds = text.unicodeScalars.reduce(0) { $0 + ($1.value >= 0x2E80 ? 200 : 70) }
        return max(1, milliseconds / 40)
    }

    /// Plans a spoken answer.
    /// - Parameter bare: Whether the samples are raw. They cannot contain an error frame, so the connection is dropped instead.
    static func plan(_ ask: Ask, script: ModelScript?, bare: Bool) -> (script: ModelScript, answer: Answer) {
        guard var script else { return (self.script, Answer(words: pieces(for: ask.question))) }
        if bare, script.errorFrame, script.dropAfter == nil { script.dropAfter = script.tokens }
        return (script, Answer(words: script.tokens))
    }

    /// The header of a WAV file of unknown length (RIFF, as streaming encoders write it).
    static let waveHeader: [UInt8] = {
        func little(_ value: UInt32, _ bytes: Int) -> [UInt8] { (0..<bytes).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) } }
        let rate = UInt32(Self.rate)
        let format = little(16, 4) + little(1, 2) + little(1, 2) + little(rate, 4) + little(rate * 2, 4) + little(2, 2) + little(16, 2)
        return Array("RIFF".utf8) + little(.max, 4) + Array("WAVEfmt ".utf8) + format + Array("data".utf8) + little(.max, 4)
    }()

    private static let pieces: [[UInt8]] = (0..<8).map { step in
        let waves = Double(9 + step)
        return (0..<samplesAPiece).flatMap { sample -> [UInt8] in
            let value = Int16(6000 * sin(2 * Double.pi * waves * Double(sample) / Double(samplesAPiece)))
            return [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)]
        }
    }

    private static let encoded = pieces.map(base64(of:))

    static func base64(of bytes: [UInt8]) -> [UInt8] { Array(Base64.encode(bytes).utf8) }
}
