import Support

/// The place of an event: `<attempt>-<seq>`, which is also the id of its entry in the log's stream.
package struct EventID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// 1 for the first worker that ran the job.
    package let attempt: Int
    /// 0, 1, 2… without gaps inside an attempt.
    package let sequence: Int

    package init(attempt: Int, sequence: Int) {
        self.attempt = attempt
        self.sequence = sequence
    }

    /// Nil unless it is two decimal numbers of at most `Int.maximumExact` (2^53 − 1) with a dash between them.
    package init?(_ text: some StringProtocol) {
        guard text.utf8.count <= 40 else { return nil }
        let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let attempt = Self.number(parts[0]), let sequence = Self.number(parts[1]) else { return nil }
        self.init(attempt: attempt, sequence: sequence)
    }

    private static func number(_ text: some StringProtocol) -> Int? {
        guard text.utf8.allSatisfy({ $0 &- 0x30 < 10 }), let number = Int(text), number <= Int.maximumExact else { return nil }
        return number
    }

    /// The event that follows in the same attempt.
    package var next: EventID { EventID(attempt: attempt, sequence: sequence.saturatingAdding(1)) }

    /// The first event of the attempt that follows.
    package var nextAttempt: EventID { EventID(attempt: attempt.saturatingAdding(1), sequence: 0) }

    package var description: String { "\(attempt)-\(sequence)" }

    package static func < (left: EventID, right: EventID) -> Bool {
        (left.attempt, left.sequence) < (right.attempt, right.sequence)
    }
}
