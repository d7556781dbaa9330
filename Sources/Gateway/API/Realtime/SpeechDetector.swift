/// Detects by its energy when someone speaks (`server_vad`). A state machine without I/O.
struct SpeechDetector: Sendable, Equatable {
    enum Change: Sendable, Equatable {
        /// - Parameter position: of the first sample of the speech.
        case started(position: Int)
        case stopped
    }

    /// Sample rate of the audio in Hz.
    static let sampleRate = 16_000
    /// Samples in a frame: 20 ms.
    static let frame = sampleRate / 50
    /// Frames of speech, minus frames of silence between them, after which speech has begun. Shorter noises are ignored.
    private static let onset = 3
    /// The energy of a frame of speech at a threshold of 1, as the root mean square of its samples. A threshold of 0.5 is about −36 dBFS.
    private static let loudness = 983.0

    private enum State: Equatable {
        /// - Parameters:
        ///   - frames: frames of speech, as counted for `onset`.
        ///   - position: of the first of them.
        case silent(frames: Int, position: Int)
        /// - Parameter silence: frames of silence since the last frame of speech.
        case speaking(silence: Int)
    }

    private let energy: Double
    private let patience: Int
    private var state = State.silent(frames: 0, position: 0)
    /// Squares and number of the samples of the incomplete frame.
    private var sum = 0.0
    private var count = 0
    /// Samples received.
    private var position = 0

    /// - Parameters:
    ///   - threshold: 0 to 1; a higher one requires louder speech.
    ///   - silence: milliseconds of silence that end the speech.
    ///   - position: of the next sample.
    init(threshold: Double, silence: Int, position: Int) {
        energy = threshold * threshold * Self.loudness * Self.loudness
        patience = max(1, silence / 20)
        self.position = position
    }

    var isSpeaking: Bool { if case .speaking = state { true } else { false } }

    /// Processes samples up to the next change.
    /// - Returns: the number of samples processed, and the change that the last of them caused.
    mutating func feed(_ samples: some Sequence<Int16>) -> (count: Int, change: Change?) {
        var taken = 0
        for sample in samples {
            sum += Double(sample) * Double(sample)
            count += 1
            position += 1
            taken += 1
            guard count == Self.frame else { continue }
            let isSpeech = sum / Double(Self.frame) >= energy && sum > 0
            (sum, count) = (0, 0)
            if let change = frame(isSpeech) { return (taken, change) }
        }
        return (taken, nil)
    }

    private mutating func frame(_ isSpeech: Bool) -> Change? {
        switch state {
        case .silent(let frames, let start):
            guard isSpeech else {
                state = .silent(frames: max(0, frames - 1), position: start)
                return nil
            }
            let begin = frames == 0 ? position - Self.frame : start
            guard frames + 1 >= Self.onset else {
                state = .silent(frames: frames + 1, position: begin)
                return nil
            }
            state = .speaking(silence: 0)
            return .started(position: begin)
        case .speaking(let silence):
            guard !isSpeech, silence + 1 >= patience else {
                state = .speaking(silence: isSpeech ? 0 : silence + 1)
                return nil
            }
            state = .silent(frames: 0, position: position)
            return .stopped
        }
    }

    /// Ends the current speech.
    mutating func reset() { state = .silent(frames: 0, position: position) }
}
