import Support

/// The input audio buffer of a Realtime connection: converts the client's audio to the sample rate of recognition, and finds utterances
/// when the server detects turns. Does no I/O.
struct RealtimeInput {
    enum Change: Equatable {
        /// - Parameter milliseconds: since the first audio of the session.
        case speechStarted(milliseconds: Int)
        /// The utterance is complete and in the buffer.
        case speechStopped(milliseconds: Int)
    }

    /// Sample rate of the client's audio in Hz.
    static let clientRate = 24_000
    /// Bytes of a millisecond of buffered audio.
    private static let millisecondBytes = SpeechDetector.sampleRate / 1_000 * 2
    private static let filter = ResamplingFilter(from: clientRate, to: SpeechDetector.sampleRate)
    /// Minimum audio of a commit.
    static let minimumMilliseconds = 100

    private let maximum: Int
    private var resampler = Resampler(Self.filter)
    /// A byte of an incomplete sample.
    private var half: UInt8?
    private var turns: RealtimeConfiguration.TurnDetection?
    private var detector: SpeechDetector?
    /// Samples of the session that are no longer in the buffer.
    private var dropped = 0
    /// Audio for recognition: 16 kHz, 16 bits, mono, little-endian.
    private(set) var audio: [UInt8] = []

    /// - Parameter maximum: bytes of the buffer.
    init(maximum: Int) { self.maximum = maximum }

    var milliseconds: Int { audio.count / Self.millisecondBytes }
    var isSpeaking: Bool { detector?.isSpeaking ?? false }

    /// Sets how turns are detected; nil: the client commits the buffer.
    mutating func detect(_ turns: RealtimeConfiguration.TurnDetection?) {
        guard turns != self.turns else { return }
        self.turns = turns
        detector = turns.map {
            SpeechDetector(threshold: $0.threshold, silence: $0.silence, position: dropped + audio.count / 2)
        }
    }

    /// Adds audio of the client.
    /// - Parameters:
    ///   - bytes: samples of 16 bits, little-endian, at `clientRate`. A sample may be split between calls.
    ///   - report: receives each change, when the buffer ends at it. It may take the buffer's audio.
    /// - Returns: false when the buffer is full; the audio is not added then.
    mutating func append(_ bytes: [UInt8], report: (inout RealtimeInput, Change) -> Void) -> Bool {
        // A third of the samples is dropped by the conversion. Detected turns are cut at the maximum instead.
        guard turns != nil || audio.count + bytes.count / 3 * 2 <= maximum else { return false }
        var samples: [Int16] = []
        samples.reserveCapacity(bytes.count / 2 + 1)
        for byte in bytes {
            if let low = half {
                samples.append(Int16(bitPattern: UInt16(low) | UInt16(byte) << 8))
                half = nil
            } else {
                half = byte
            }
        }
        var converted = resampler.feed(samples)[...]
        while !converted.isEmpty {
            guard var detector else {
                add(converted)
                break
            }
            let (count, change) = detector.feed(converted)
            self.detector = detector
            add(converted.prefix(count))
            converted = converted.dropFirst(count)
            switch change {
            case .started(let position)?:
                let start = max(dropped, position - (turns?.prefixPadding ?? 0) * SpeechDetector.sampleRate / 1_000)
                drop(start - dropped)
                report(&self, .speechStarted(milliseconds: start * 1_000 / SpeechDetector.sampleRate))
            case .stopped?: stop(report)
            case nil:
                if isSpeaking {
                    guard audio.count > maximum else { continue }
                    self.detector?.reset()
                    stop(report)
                } else {
                    keepPadding()
                }
            }
        }
        return true
    }

    private mutating func stop(_ report: (inout RealtimeInput, Change) -> Void) {
        report(&self, .speechStopped(milliseconds: (dropped + audio.count / 2) * 1_000 / SpeechDetector.sampleRate))
    }

    private mutating func add(_ samples: ArraySlice<Int16>) {
        for sample in samples {
            audio.append(UInt8(truncatingIfNeeded: sample))
            audio.append(UInt8(truncatingIfNeeded: sample >> 8))
        }
    }

    /// Drops silence that no utterance will begin with.
    private mutating func keepPadding() {
        let kept = ((turns?.prefixPadding ?? 0) + 200) * Self.millisecondBytes
        if audio.count > 2 * kept { drop((audio.count - kept) / 2) }
    }

    private mutating func drop(_ samples: Int) {
        audio.removeFirst(min(2 * samples, audio.count))
        dropped += samples
    }

    /// Removes and returns the buffered audio.
    mutating func take() -> [UInt8] {
        defer { clear() }
        return audio
    }

    /// Removes the buffered audio, and ends the utterance in it.
    mutating func clear() {
        dropped += audio.count / 2
        audio = []
        detector?.reset()
    }
}
