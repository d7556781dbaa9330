import Support

/// A histogram of durations with fixed buckets. Unlike percentiles, histograms of several workers or periods can be added up.
package struct LatencyBuckets: Sendable, Equatable {
    /// Inclusive upper bounds in microseconds: 100 µs to 5 min. Longer durations have a bucket of their own.
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
    /// Number of buckets: one more than there are bounds.
    package static let slots = 40

    /// Number of durations per bucket; `slots` elements.
    package private(set) var counts: [Int]

    package init() { counts = Array(repeating: 0, count: Self.slots) }

    package init(counts: [Int]) {
        self.init()
        for (index, count) in counts.prefix(Self.slots).enumerated() { self.counts[index] = count.boundedCount }
    }

    /// - Parameter text: a value of `text`. Missing or invalid counts become 0.
    package init(parsing text: String?) {
        self.init(counts: (text ?? "").split(separator: ",", maxSplits: Self.slots).map { Int($0) ?? 0 })
    }

    /// The counts separated by commas, without trailing zeros.
    package var text: String {
        guard let last = counts.lastIndex(where: { $0 > 0 }) else { return "" }
        return counts[...last].map(String.init).joined(separator: ",")
    }

    /// The index of the bucket that counts a duration.
    package static func slot(of microseconds: Int) -> Int { bounds.firstIndex { microseconds <= $0 } ?? bounds.count }

    package mutating func record(microseconds: Int) { counts[Self.slot(of: microseconds)] += 1 }

    package var total: Int { counts.reduce(0) { $0.saturatingAdding($1) } }

    package static func + (left: LatencyBuckets, right: LatencyBuckets) -> LatencyBuckets {
        LatencyBuckets(counts: zip(left.counts, right.counts).map { $0.saturatingAdding($1) })
    }

    /// The durations recorded since `right`, an earlier state of the same histogram.
    package static func - (left: LatencyBuckets, right: LatencyBuckets) -> LatencyBuckets {
        LatencyBuckets(counts: zip(left.counts, right.counts).map { $0.saturatingSubtracting($1) })
    }

    /// Whether any bucket counts more durations than that of another histogram.
    func hasMore(than other: LatencyBuckets) -> Bool { zip(counts, other.counts).contains { $0 > $1 } }

    /// A quantile in microseconds, interpolated linearly within its bucket; nil for an empty histogram.
    /// - Parameter part: 0 to 1, for example 0.99 for p99.
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
