/// A moment on a loop at which a closure runs, once. To be used on its loop only.
package final class LoopTimer {
    fileprivate(set) var deadline: UInt64 = 0
    /// Orders timers of one deadline by the time at which they were set.
    fileprivate var sequence: UInt64 = 0
    /// Where it stands in the heap; -1 while it is not set.
    fileprivate var position = -1
    private var body: (() -> Void)?
    private let isOneShot: Bool

    init(oneShot: Bool, _ body: @escaping () -> Void) {
        isOneShot = oneShot
        self.body = body
    }

    /// One that may be set again and again, by `EpollLoop.set`; it holds its closure as long as it lives.
    package convenience init(_ body: @escaping () -> Void) { self.init(oneShot: false, body) }

    func fire() {
        let body = body
        release()
        body?()
    }

    /// A one-shot's closure may hold whoever holds the timer.
    func release() { if isOneShot { body = nil } }

    package var isSet: Bool { position >= 0 }
}

/// A binary heap of timers that know their place in it, so that cancelling costs O(log n) and leaves nothing behind.
struct LoopTimers {
    private var heap: [LoopTimer] = []
    private var nextSequence: UInt64 = 0

    var count: Int { heap.count }
    /// CLOCK_MONOTONIC ns.
    var nextDeadline: UInt64? { heap.first?.deadline }

    /// Sets a timer, or moves one that is set.
    mutating func set(_ timer: LoopTimer, deadline: UInt64) {
        timer.deadline = deadline
        timer.sequence = nextSequence
        nextSequence += 1
        if timer.position < 0 {
            timer.position = heap.count
            heap.append(timer)
        }
        settle(timer.position)
    }

    mutating func remove(_ timer: LoopTimer) {
        let position = timer.position
        guard position >= 0 else { return }
        timer.position = -1
        let last = heap.removeLast()
        guard last !== timer else { return }
        place(last, at: position)
        settle(position)
    }

    /// The earliest timer whose deadline is not after `now` and which was set before `sequence`, taken out of the heap.
    mutating func popDue(now: UInt64, before sequence: UInt64) -> LoopTimer? {
        guard let first = heap.first, first.deadline <= now, first.sequence < sequence else { return nil }
        remove(first)
        return first
    }

    /// Timers set from now on have this sequence or a later one: a bound for `popDue`, lest a timer that sets itself again with no delay
    /// keep the loop in one turn for ever.
    var sequenceBound: UInt64 { nextSequence }

    private mutating func place(_ timer: LoopTimer, at position: Int) {
        heap[position] = timer
        timer.position = position
    }

    private static func isBefore(_ left: LoopTimer, _ right: LoopTimer) -> Bool {
        (left.deadline, left.sequence) < (right.deadline, right.sequence)
    }

    private mutating func settle(_ start: Int) {
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
