import Support

/// How many of something took how long. Counts of several workers, or of several stretches of time, can be added up; percentiles cannot.
package struct LatencyBuckets: Sendable, Equatable {
    /// Upper bounds in microseconds, inclusive: 100 µs to 5 min. What is above them all has a count of its own.
    package static let bounds: [Int] = {
        let steps = [10, 15, 20, 30, 50, 70]
        var bounds: [Int] = []
        var decade = 10
        while decade <= 1_000_000 {
            bounds += steps.map { $0 * decade }
            decade *= 10
        }
        return bounds + [100_000_000, 150_000_000, 300_000_000]
    }()
    package static let slots = 40

    /// One more than there are bounds.
    package private(set) var counts: [Int]

    package init() { counts = Array(repeating: 0, count: Self.slots) }

    package init(counts: [Int]) {
        self.init()
        for (index, count) in counts.prefix(Self.slots).enumerated() { self.counts[index] = count.boundedCount }
    }

    /// - Parameter text: as `text` writes it; anything else counts for nothing.
    package init(parsing text: String?) {
        self.init(counts: (text ?? "").split(separator: ",", maxSplits: Self.slots).map { Int($0) ?? 0 })
    }

    /// Counts separated by commas, without the zeros at the end.
    package var text: String {
        guard let last = counts.lastIndex(where: { $0 > 0 }) else { return "" }
        return counts[...last].map(String.init).joined(separator: ",")
    }

    package static func slot(of microseconds: Int) -> Int { bounds.firstIndex { microseconds <= $0 } ?? bounds.count }

    package mutating func record(microseconds: Int) { counts[Self.slot(of: microseconds)] += 1 }

    package var total: Int { counts.reduce(0) { $0.saturatingAdding($1) } }

    package static func + (left: LatencyBuckets, right: LatencyBuckets) -> LatencyBuckets {
        LatencyBuckets(counts: zip(left.counts, right.counts).map { $0.saturatingAdding($1) })
    }

    /// What came after `right`, an earlier count of the same.
    package static func - (left: LatencyBuckets, right: LatencyBuckets) -> LatencyBuckets {
        LatencyBuckets(counts: zip(left.counts, right.counts).map { $0.saturatingSubtracting($1) })
    }

    /// Microseconds that a part of all stays below, assumed to be spread evenly within a bucket; nil when there is nothing.
    /// - Parameter part: 0 to 1; 0.99 for p99.
    package func quantile(_ part: Double) -> Int? {
        let total = total
        guard total > 0 else { return nil }
        let rank = max(1, part * Double(total))
        var seen = 0
        for (slot, count) in counts.enumerated() where count > 0 {
            if Double(seen.saturatingAdding(count)) >= rank {
                guard slot < Self.bounds.count else { return Self.bounds[Self.bounds.count - 1] }
                let lower = slot == 0 ? 0 : Self.bounds[slot - 1]
                return lower + Int(bounding: Double(Self.bounds[slot] - lower) * (rank - Double(seen)) / Double(count))
            }
            seen = seen.saturatingAdding(count)
        }
        return nil
    }
}
