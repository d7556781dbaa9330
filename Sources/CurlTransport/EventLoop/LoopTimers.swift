/// A timer of an event loop: runs a closure at its deadline. Used on its loop only.
package final class LoopTimer {
    /// Nanoseconds of CLOCK_MONOTONIC.
    fileprivate(set) var deadline: UInt64 = 0
    /// Orders timers with equal deadlines by the order in which they were set.
    fileprivate var sequence: UInt64 = 0
    /// Index in the heap; -1 while the timer is not set.
    fileprivate var position = -1
    private var body: (() -> Void)?
    private let isOneShot: Bool

    /// - Parameter oneShot: Whether the closure is released when the timer fires or is cancelled.
    init(oneShot: Bool, _ body: @escaping () -> Void) {
        isOneShot = oneShot
        self.body = body
    }

    /// Makes a timer that can be set repeatedly with `EpollLoop.set`. It retains its closure for its whole lifetime.
    package convenience init(_ body: @escaping () -> Void) { self.init(oneShot: false, body) }

    /// Runs the closure. A one-shot timer releases it first.
    func fire() {
        let body = body
        release()
        body?()
    }

    /// Releases a one-shot timer's closure. This breaks a reference cycle if the closure holds the timer's owner.
    func release() { if isOneShot { body = nil } }

    package var isSet: Bool { position >= 0 }
}

/// A binary heap of timers. Each timer stores its index, so cancelling costs O(log n) and leaves no stale entries.
struct LoopTimers {
    private var heap: [LoopTimer] = []
    private var nextSequence: UInt64 = 0

    var count: Int { heap.count }
    /// The earliest deadline, nanoseconds of CLOCK_MONOTONIC; nil without timers.
    var nextDeadline: UInt64? { heap.first?.deadline }

    /// Sets a timer, or moves it if it is already set.
    mutating func set(_ timer: LoopTimer, deadline: UInt64) {
        timer.deadline = deadline
        timer.sequence = nextSequence
        nextSequence += 1
        if timer.position < 0 {
            timer.position = heap.count
            heap.append(timer)
        }
        restoreOrder(timer.position)
    }

    /// Removes a timer. Does nothing if the timer is not set.
    mutating func remove(_ timer: LoopTimer) {
        let position = timer.position
        guard position >= 0 else { return }
        timer.position = -1
        let last = heap.removeLast()
        guard last !== timer else { return }
        place(last, at: position)
        restoreOrder(position)
    }

    /// Removes and returns the earliest timer if it is due at `now` and was set before `sequence`.
    mutating func popDue(now: UInt64, before sequence: UInt64) -> LoopTimer? {
        guard let first = heap.first, first.deadline <= now, first.sequence < sequence else { return nil }
        remove(first)
        return first
    }

    /// Lower bound of the sequences of timers set from now on. Passed to `popDue`, it keeps a timer that sets itself again without delay
    /// from looping within one turn.
    var sequenceBound: UInt64 { nextSequence }

    private mutating func place(_ timer: LoopTimer, at position: Int) {
        heap[position] = timer
        timer.position = position
    }

    private static func isBefore(_ left: LoopTimer, _ right: LoopTimer) -> Bool {
        (left.deadline, left.sequence) < (right.deadline, right.sequence)
    }

    /// Restores the heap order for one timer by moving it up or down.
    private mutating func restoreOrder(_ start: Int) {
        var position = start
        let timer = heap[position]
        while position > 0 {
            let parent = (position - 1) / 2
            guard Self.isBefore(timer, heap[parent]) else { break }
            place(heap[parent], at: position)
            position = parent
        }
        while true {
            var child = 2 * position + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, Self.isBefore(heap[child + 1], heap[child]) { child += 1 }
            guard Self.isBefore(heap[child], timer) else { break }
            place(heap[child], at: position)
            position = child
        }
        place(timer, at: position)
    }
}
