import Support

/// The id of an event, `<attempt>-<sequence>`, which is also the id of its entry in the log's stream.
package struct EventID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The number of the attempt, from 1.
    package let attempt: Int
    /// The number of the event in its attempt, from 0 without gaps.
    package let sequence: Int

    package init(attempt: Int, sequence: Int) {
        self.attempt = attempt
        self.sequence = sequence
    }

    /// Nil unless the text is two decimal numbers of at most `Int.maximumExact` (2^53 − 1), separated by a dash.
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

    /// The id of the next event in the same attempt.
    package var next: EventID { EventID(attempt: attempt, sequence: sequence.saturatingAdding(1)) }

    /// The id of the first event of the next attempt.
    package var nextAttempt: EventID { EventID(attempt: attempt.saturatingAdding(1), sequence: 0) }

    package var description: String { "\(attempt)-\(sequence)" }

    /// Number of bytes of the text.
    package var length: Int { attempt.decimalLength + 1 + sequence.decimalLength }

    /// Appends the text without allocating a `String`.
    package func append(to out: inout [UInt8]) {
        out.appendDecimal(attempt)
        out.append(UInt8(ascii: "-"))
        out.appendDecimal(sequence)
    }

    package static func < (left: EventID, right: EventID) -> Bool {
        (left.attempt, left.sequence) < (right.attempt, right.sequence)
    }
}
