import CoreMetrics
import Synchronization

/// A counter: a number that only increases, unless its owner resets it. Thread-safe without locks.
final class CounterSeries: CounterHandler, FloatingPointCounterHandler {
    private let whole = Atomic<Int64>(0)
    private let fraction = AtomicDouble()

    var value: Double { Double(whole.load(ordering: .relaxed)) + fraction.value }

    func increment(by amount: Int64) {
        guard amount > 0 else { return }
        whole.wrappingAdd(amount, ordering: .relaxed)
    }

    func increment(by amount: Double) {
        guard amount > 0 else { return }
        fraction.add(amount)
    }

    func reset() {
        whole.store(0, ordering: .relaxed)
        fraction.set(0)
    }
}

/// A gauge: a number that increases and decreases. Thread-safe without locks.
final class GaugeSeries: MeterHandler, RecorderHandler {
    private let number = AtomicDouble()

    var value: Double { number.value }

    func set(_ value: Int64) { number.set(Double(value)) }
    func set(_ value: Double) { number.set(value) }
    func increment(by amount: Double) { number.add(amount) }
    func decrement(by amount: Double) { number.add(-amount) }
    func record(_ value: Int64) { number.set(Double(value)) }
    func record(_ value: Double) { number.set(value) }
}

/// A histogram: counts of values per bucket and their sum. Thread-safe without locks.
final class HistogramSeries: TimerHandler, RecorderHandler {
    /// Number of buckets: the maximum number of bounds, and one for larger values.
    private static let slots = 17

    let bounds: [Double]
    private let counts = [17 of Atomic<Int64>] { _ in Atomic(0) }
    private let total = AtomicDouble()

    /// - Parameter bounds: inclusive upper bounds in ascending order; at most 16, further ones are ignored.
    init(bounds: [Double]) {
        self.bounds = Array(bounds.prefix(Self.slots - 1))
    }

    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
    func record(_ value: Int64) { record(Double(value)) }

    func record(_ value: Double) {
        guard !value.isNaN else { return }
        var slot = 0
        while slot < bounds.count, value > bounds[slot] { slot += 1 }
        counts[slot].wrappingAdd(1, ordering: .relaxed)
        total.add(value)
    }

    /// The cumulative counts per bound, the last of which counts all values, and the sum of the values. A value recorded concurrently may be
    /// included in only one of the two.
    var snapshot: (cumulative: [Int64], sum: Double) {
        var running: Int64 = 0
        var cumulative: [Int64] = []
        for slot in 0...bounds.count {
            running += counts[slot].load(ordering: .relaxed)
            cumulative.append(running)
        }
        return (cumulative, total.value)
    }
}

/// A `Double` with atomic operations (relaxed ordering).
final class AtomicDouble: Sendable {
    private let bits = Atomic<UInt64>(0)

    var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }

    func set(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

    func add(_ amount: Double) {
        var seen = bits.load(ordering: .relaxed)
        while true {
            let sum = (Double(bitPattern: seen) + amount).bitPattern
            let (exchanged, original) = bits.weakCompareExchange(expected: seen, desired: sum, ordering: .relaxed)
            if exchanged { return }
            seen = original
        }
    }
}
