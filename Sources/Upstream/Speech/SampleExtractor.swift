import Contract
import Support

/// Extracts PCM samples from audio in which some servers send something else: the header of a WAV file is checked and removed, compressed
/// audio is rejected, because it would be noise at full level.
struct SampleExtractor {
    private enum State {
        /// The start of the audio, as long as its form is unknown.
        case start([UInt8])
        /// Samples; a number limits the bytes left.
        case samples(Int)
    }

    /// What the start of the audio shows.
    private enum Form: Equatable {
        case unknown
        case raw
        case wave(headerBytes: Int, dataBytes: Int)
    }

    /// Maximum size of a WAV header in bytes.
    private static let maximumHeaderBytes = 64 * 1024
    /// Samples per second of the PCM that is requested.
    private static let rate = 24_000

    private var state = State.start([])
    /// Whether there were any samples.
    private(set) var hasSamples = false

    /// Adds bytes and appends the samples among them.
    /// - Throws: `upstream_protocol` for audio that is not PCM, 16 bits, mono, 24 kHz.
    mutating func add(_ bytes: Span<UInt8>, into samples: inout [UInt8]) throws(Failure) {
        switch state {
        case .samples(let left):
            let taken = min(left, bytes.count)
            append(bytes.extracting(first: taken), into: &samples)
            if left != .max { state = .samples(left - taken) }
        case .start(var start):
            state = .start([])
            start.append(copying: bytes)
            try begin(start, isEnd: false, into: &samples)
        }
    }

    /// Appends what was held back because the audio is very short.
    /// - Throws: `upstream_protocol` for an incomplete WAV header.
    mutating func finish(into samples: inout [UInt8]) throws(Failure) {
        guard case .start(let start) = state, !start.isEmpty else { return }
        try begin(start, isEnd: true, into: &samples)
    }

    private mutating func begin(_ start: [UInt8], isEnd: Bool, into samples: inout [UInt8]) throws(Failure) {
        var form = try Self.form(of: start.span)
        if isEnd, form == .unknown {
            guard !Self.isWave(start.span) else { throw Self.rejected("an incomplete WAV header") }
            form = .raw
        }
        switch form {
        case .unknown: state = .start(start)
        case .raw:
            state = .samples(.max)
            append(start.span, into: &samples)
        case .wave(let header, let data):
            state = .samples(data)
            try add(start.span.extracting(droppingFirst: header), into: &samples)
        }
    }

    private mutating func append(_ bytes: Span<UInt8>, into samples: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        hasSamples = true
        samples.append(copying: bytes)
    }

    static func rejected(_ what: String) -> Failure {
        Failure(.upstreamProtocol, "the speech upstream sent \(what) instead of PCM (16 bits, mono, 24 kHz)")
    }

    // MARK: recognizing forms

    private static func form(of start: Span<UInt8>) throws(Failure) -> Form {
        guard start.count >= 4 else { return .unknown }
        if isWave(start) { return try waveForm(start) }
        for mark in ["ID3", "OggS", "fLaC", "\u{1A}E\u{7E3}"] as [StaticString] where start.starts(with: mark) {
            throw rejected("compressed audio")
        }
        if start[0] == 0xFF, start[1] & 0xE0 == 0xE0 {
            guard start.count >= 6 else { return .unknown }
            guard let length = frameBytes(start) else { return .raw }
            // Samples may look like the header of a frame, but not like two of them at the right distance.
            guard start.count >= length + 2 else { return .unknown }
            if start[length] == 0xFF, start[length + 1] == start[1] { throw rejected("compressed audio") }
        }
        if start[0] == 0, start[1] == 0, start[2] == 0 {
            // The first box of an MP4 file.
            guard start.count >= 8 else { return .unknown }
            if start.extracting(droppingFirst: 4).starts(with: "ftyp") { throw rejected("compressed audio") }
        }
        return .raw
    }

    private static func isWave(_ bytes: Span<UInt8>) -> Bool { bytes.starts(with: "RIFF") || bytes.starts(with: "RF64") }

    /// Reads the chunks of a WAV file up to its samples.
    private static func waveForm(_ bytes: Span<UInt8>) throws(Failure) -> Form {
        guard bytes.count >= 12 else { return .unknown }
        guard bytes.extracting(droppingFirst: 8).starts(with: "WAVE") else { throw rejected("a RIFF file that is not WAV") }
        var position = 12
        var hasFormat = false
        while position + 8 <= bytes.count {
            let chunk = bytes.extracting(droppingFirst: position)
            let size = Int(number(chunk, at: 4, bytes: 4))
            if chunk.starts(with: "data") {
                guard hasFormat else { throw rejected("a WAV file without a format") }
                // Servers that stream do not know the size yet: they write 0 or a very large number.
                return .wave(headerBytes: position + 8, dataBytes: size == 0 || size >= 0x7FFF_0000 ? .max : size)
            }
            if chunk.starts(with: "fmt ") {
                guard size >= 16 else { throw rejected("a WAV file with an invalid format") }
                guard chunk.count >= 8 + min(size, 26) else { return .unknown }
                try checkFormat(chunk.extracting(droppingFirst: 8), size: size)
                hasFormat = true
            }
            position += 8 + size + size % 2
            guard position <= maximumHeaderBytes else { throw rejected("a WAV file with a long header") }
        }
        return .unknown
    }

    private static func checkFormat(_ format: Span<UInt8>, size: Int) throws(Failure) {
        let tag = number(format, at: 0, bytes: 2)
        // The extensible form has the tag at the start of its subformat.
        let coding = tag == 0xFFFE && size >= 26 ? number(format, at: 24, bytes: 2) : tag
        let (channels, rate, bits) = (number(format, at: 2, bytes: 2), number(format, at: 4, bytes: 4), number(format, at: 14, bytes: 2))
        guard coding == 1, channels == 1, rate == Self.rate, bits == 16 else {
            throw rejected("a WAV file with coding \(coding), \(channels) channels, \(rate) Hz and \(bits) bits")
        }
    }

    /// A number in little-endian order.
    private static func number(_ bytes: Span<UInt8>, at offset: Int, bytes count: Int) -> UInt32 {
        (0..<count).reduce(UInt32(0)) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
    }

    /// The size of an MP3 or AAC frame, from the first six bytes of its header. Nil if they are not such a header.
    private static func frameBytes(_ header: Span<UInt8>) -> Int? {
        if header[1] & 0xF6 == 0xF0 {
            let length = Int(header[3] & 3) << 11 | Int(header[4]) << 3 | Int(header[5]) >> 5
            return length >= 7 ? length : nil
        }
        let (version, layer) = (header[1] >> 3 & 3, header[1] >> 1 & 3)
        let (bitrate, rate) = (Int(header[2] >> 4), Int(header[2] >> 2 & 3))
        // Layer III only. Version 1 is reserved; 0, 2 and 3 are MPEG 2.5, 2 and 1.
        guard layer == 1, version != 1, (1...14).contains(bitrate), rate != 3 else { return nil }
        let isFirst = version == 3
        let kilobits =
            isFirst
            ? [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320] : [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
        let hertz = [44_100, 48_000, 32_000][rate] / (isFirst ? 1 : version == 2 ? 2 : 4)
        return (isFirst ? 144 : 72) * kilobits[bitrate - 1] * 1_000 / hertz + Int(header[2] >> 1 & 1)
    }
}
