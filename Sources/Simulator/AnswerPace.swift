/// The schedule of an answer: when each piece is due and what follows the last one. Pure arithmetic on CLOCK_MONOTONIC nanoseconds.
///
/// The schedule is absolute: piece i is due at `zero + (i / burst) * gap`. A late timer or a slow reader never lowers the rate; the answer
/// catches up.
struct AnswerPace: Hashable, Sendable {
    /// What follows the last piece.
    enum Ending: Hashable, Sendable {
        /// Finish reason, usage and end mark.
        case complete
        /// The connection closes in the middle of the body.
        case drop
        /// Nothing is sent, and the connection stays open.
        case silence
        /// An error frame, then the proper end of the body.
        case errorFrame
        /// The proper end of the body, without finish reason and end mark.
        case truncated
    }

    /// Due time of the first piece.
    let zero: UInt64
    /// Nanoseconds between bursts.
    let gap: UInt64
    /// Pieces in one burst.
    let burst: Int
    /// Number of pieces before the ending.
    let limit: Int
    let ending: Ending
    /// Number of pieces taken so far.
    private(set) var written = 0
    /// Due time of the ending. A streamed answer ends with its last piece, an answer in one response one gap later.
    private let endDue: UInt64

    /// - Parameters:
    ///   - start: When the request was complete.
    ///   - count: Number of pieces of the whole answer.
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

    /// Due time of the next piece, or of the ending.
    var due: UInt64 { isExhausted ? endDue : zero + UInt64(written / burst) * gap }

    /// Returns the index of the next piece if it is due, and counts it as written.
    mutating func take(at now: UInt64) -> Int? {
        guard written < limit, due <= now else { return nil }
        defer { written += 1 }
        return written
    }

    func hasEnded(at now: UInt64) -> Bool { isExhausted && endDue <= now }
}
