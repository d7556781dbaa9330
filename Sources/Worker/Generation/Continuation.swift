import Contract
import Upstream

/// What earlier attempts of a job have told its readers, as far as it is gone on from.
struct Continuation {
    /// All of the text that readers have.
    let text: String
    /// How the text ended, if it has: then only the voice is left to do.
    let finish: FinishReason?
    /// The index of the next audio event.
    let nextAudio: Int
    /// The voice was closed.
    let isVoiceClosed: Bool
    /// Where the last sentence begins of which something is heard, bytes of UTF-8; nil when nothing is heard yet.
    let lastSpoken: Int?

    private static let maximumAudioIndex = 1 << 53

    /// White space at the text's end that the upstream was not shown: what it repeats of that is left out of its answer.
    private var hidden: Substring = ""

    /// Nil when there is nothing that can be gone on from.
    init?(_ earlier: [LoggedEvent], job: Job, route: [UpstreamRoute.Stop]) {
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
                // It comes from the log, that is from outside.
                nextAudio = min(max(0, audio.index), Self.maximumAudioIndex) + 1
                isVoiceClosed = audio.last
                // Of an event that does not say, all that was written may be spoken.
                if !audio.last { lastSpoken = audio.textOffset ?? text.utf8.count }
            default: break
            }
        }
        // Complete, it needs no upstream that could go on; and what was called is no beginning of anything.
        guard !text.isEmpty, finish != nil || !hasCalls && route.first.map({ $0.upstream.prefix != .none }) == true else { return nil }
        self.text = text
        self.finish = finish
        self.nextAudio = nextAudio
        self.isVoiceClosed = isVoiceClosed
        self.lastSpoken = lastSpoken
    }

    /// The beginning of the answer as this kind of upstream takes it. Anthropic refuses one that ends with white space.
    mutating func shown(to kind: UpstreamConfiguration.Kind) -> String {
        guard kind == .anthropic, let end = text.lastIndex(where: { !$0.isWhitespace }) else {
            hidden = kind == .anthropic ? text[...] : ""
            return kind == .anthropic ? "" : text
        }
        let split = text.index(after: end)
        hidden = text[split...]
        return String(text[..<split])
    }

    /// What is new in a piece of the answer.
    mutating func new(in piece: String) -> String {
        guard !hidden.isEmpty else { return piece }
        var rest = piece[...]
        while let due = hidden.first, let next = rest.first {
            guard due == next else {
                hidden = ""
                break
            }
            hidden.removeFirst()
            rest.removeFirst()
        }
        return String(rest)
    }
}
