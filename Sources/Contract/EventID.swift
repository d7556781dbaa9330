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

    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let attempt = Int(parts[0]), let sequence = Int(parts[1]), attempt >= 0, sequence >= 0 else { return nil }
        self.init(attempt: attempt, sequence: sequence)
    }

    package var next: EventID { EventID(attempt: attempt, sequence: sequence + 1) }

    /// Whether this id may directly follow `previous` (nil: none yet) in a stream without gaps.
    package func follows(_ previous: EventID?) -> Bool {
        guard let previous else { return sequence == 0 && attempt == 1 }
        return attempt == previous.attempt ? sequence == previous.sequence + 1 : attempt == previous.attempt + 1 && sequence == 0
    }

    package var description: String { "\(attempt)-\(sequence)" }

    package static func < (left: EventID, right: EventID) -> Bool {
        (left.attempt, left.sequence) < (right.attempt, right.sequence)
    }
}
