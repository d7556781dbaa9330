/// When each piece of an answer is due and what happens after the last one: pure arithmetic on nanoseconds of CLOCK_MONOTONIC.
///
/// The schedule is absolute: piece i is due at `zero + (i / burst) * gap`. Being late, or a slow reader, never lowers the rate; it catches
/// up.
struct AnswerPace: Hashable, Sendable {
    enum Ending: Hashable, Sendable {
        /// Finish reason, usage, end mark.
        case complete
        /// The connection breaks in mid-body.
        case drop
        /// Nothing more, and the connection stays.
        case silence
        /// An error frame, then a clean end.
        case errorFrame
        /// A clean end without finish reason and end mark.
        case truncated
    }

    let zero: UInt64
    let gap: UInt64
    let burst: Int
    /// Pieces until the ending.
    let limit: Int
    let ending: Ending
    private(set) var written = 0
    /// When an answer in one go is complete; a streamed one ends with its last piece.
    private let endDue: UInt64

    /// - Parameters:
    ///   - start: when the request was there, whole.
    ///   - count: pieces of the whole answer.
    init(script: ModelScript, start: UInt64, count: Int, streamed: Bool) {
        zero = start + script.firstDelay
        gap = script.gap
        burst = script.burst
        var limit = count
        var ending: Ending = script.errorFrame ? .errorFrame : script.truncated ? .truncated : .complete
        if let drop = script.dropAfter, drop <= limit {
            limit = drop
            ending = .drop
        }
        if let silent = script.silentAfter, silent < limit {
            limit = silent
            ending = .silence
        }
        self.limit = limit
        self.ending = ending
        let last = streamed ? max(0, limit - 1) : limit
        endDue = zero + UInt64(last / script.burst) * script.gap
    }

    var isExhausted: Bool { written >= limit }

    /// When there is something to do next.
    var due: UInt64 { isExhausted ? endDue : zero + UInt64(written / burst) * gap }

    /// The next piece's index if it is due, which it then counts as written.
    mutating func take(at now: UInt64) -> Int? {
        guard written < limit, due <= now else { return nil }
        defer { written += 1 }
        return written
    }

    func hasEnded(at now: UInt64) -> Bool { isExhausted && endDue <= now }
}
