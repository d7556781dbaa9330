import Contract
import Upstream

/// The output of earlier attempts that a new attempt continues (`on_crash` is `continue`).
struct Continuation {
    /// The text that is already in the event log.
    let text: String
    /// The finish reason if the text is complete; then only the speech is continued.
    let finish: FinishReason?
    /// The index of the next audio event.
    let nextAudio: Int
    /// Whether the closing audio event is in the log.
    let isVoiceClosed: Bool
    /// Offset of the last sentence with audio in the log, in bytes of UTF-8; nil when there is none.
    let lastSpoken: Int?

    /// Upper bound for audio indices read from the log, so that incrementing them cannot overflow.
    private static let maximumAudioIndex = 1 << 53

    /// Trailing white space that was not sent to the upstream. If the answer repeats it, it is removed there.
    private var withheld: Substring = ""

    /// Builds the continuation from the event log.
    /// - Returns: nil when the job restarts instead: by its setting, without text, after a tool call, or when the upstream cannot
    ///   continue a text.
    init?(_ earlier: [LoggedEvent], job: Job, route: [UpstreamRoute.Candidate]) {
        guard job.onCrash == .continue else { return nil }
        var (text, finish, nextAudio, isVoiceClosed, hasCalls) = ("", FinishReason?.none, 0, false, false)
        var lastSpoken: Int?
        for event in earlier {
            switch event.event {
            case .text(let piece): text += piece
            case .restarted: (text, finish, nextAudio, isVoiceClosed, lastSpoken, hasCalls) = ("", nil, 0, false, nil, false)
            case .toolCall: hasCalls = true
            case .audio(let audio):
                finish = audio.textFinish ?? finish
                // The index comes from the log and may be any number.
                nextAudio = min(max(0, audio.index), Self.maximumAudioIndex) + 1
                isVoiceClosed = audio.last
                // An audio event without an offset may cover all text before it.
                if !audio.last { lastSpoken = audio.textOffset ?? text.utf8.count }
            default: break
            }
        }
        // A complete text needs no upstream that can continue it. A text with tool calls cannot be continued.
        guard !text.isEmpty, finish != nil || !hasCalls && route.first.map({ $0.upstream.prefix != .none }) == true else { return nil }
        self.text = text
        self.finish = finish
        self.nextAudio = nextAudio
        self.isVoiceClosed = isVoiceClosed
        self.lastSpoken = lastSpoken
    }

    /// The text as an upstream of this kind accepts it as a prefix. Anthropic rejects a prefix that ends with white space.
    mutating func prefix(for kind: UpstreamConfiguration.Kind) -> String {
        guard kind == .anthropic, let end = text.lastIndex(where: { !$0.isWhitespace }) else {
            withheld = kind == .anthropic ? text[...] : ""
            return kind == .anthropic ? "" : text
        }
        let split = text.index(after: end)
        withheld = text[split...]
        return String(text[..<split])
    }

    /// Removes repeated white space at the beginning of the answer.
    /// - Parameter piece: the next piece of the answer.
    /// - Returns: the part that is not in the log yet.
    mutating func withoutRepeatedSpace(_ piece: String) -> String {
        guard !withheld.isEmpty else { return piece }
        var rest = piece[...]
        while let expected = withheld.first, let next = rest.first {
            guard expected == next else {
                withheld = ""
                break
            }
            withheld.removeFirst()
            rest.removeFirst()
        }
        return String(rest)
    }
}
