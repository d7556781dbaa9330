import NIOCore

/// An object that a `TokenClock` calls at a due time. Its properties belong to the clock.
class Timed {
    /// Nanoseconds of CLOCK_MONOTONIC.
    fileprivate(set) final var due: UInt64 = 0
    /// Index in the clock's heap; -1 while not in it.
    fileprivate final var position = -1
    /// Whether it waits for `due`. An object that is called remains in the heap meanwhile, because it usually waits again.
    fileprivate final var isWaiting = false

    /// Called at `due` or up to one tick later. The object is no longer waiting then and may wait again.
    func fire(at now: UInt64) {}
}

/// A timer queue for all answers of one event loop. The event loop itself has at most one timer at a time, however many answers are
/// running.
///
/// It is a heap ordered by due time, with four children per node. Answers due within one tick are written in one turn of the loop. After at
/// most `firingsATurn` of them the loop polls its sockets again, so a disconnect is noticed promptly under full load.
final class TokenClock {
    private let eventLoop: any EventLoop
    private let tick: UInt64
    private var heap: [Timed] = []
    private var wake: (at: UInt64, callback: NIOScheduledCallback)?
    private var isFiring = false
    /// Buffer for the bytes of all answers. Each write is handed to the socket before the next one begins, so one buffer is enough.
    var writer = ChunkWriter()

    private static let firingsATurn = 32
    /// Delay of the next turn in nanoseconds if more answers are due. The loop runs due timers without polling its sockets, so the timer
    /// must be in the future.
    private static let pollDelay: UInt64 = 15_000

    /// - Parameter tick: Nanoseconds between two turns under load.
    init(eventLoop: any EventLoop, tick: UInt64) {
        self.eventLoop = eventLoop
        self.tick = tick
    }

    /// Nanoseconds of CLOCK_MONOTONIC.
    static var now: UInt64 { NIODeadline.now().uptimeNanoseconds }

    /// Number of objects that wait or are called.
    var waiting: Int { heap.count }

    /// Adds an object to the queue, or changes its due time.
    func wait(_ timed: Timed, until due: UInt64) {
        timed.due = due
        timed.isWaiting = true
        if timed.position < 0 {
            timed.position = heap.count
            heap.append(timed)
        }
        siftUp(timed.position)
        siftDown(timed.position)
        if !isFiring { arm(notBefore: 0) }
    }

    /// Removes an object from the queue. Does nothing if it is not waiting.
    func cancel(_ timed: Timed) {
        timed.isWaiting = false
        let position = timed.position
        guard position >= 0 else { return }
        timed.position = -1
        let last = heap.removeLast()
        guard last !== timed else { return }
        heap[position] = last
        last.position = position
        siftUp(position)
        siftDown(last.position)
    }

    /// Schedules the event loop's timer for the first due time, but not before `earliest`. Keeps an earlier timer.
    private func arm(notBefore earliest: UInt64) {
        guard let first = heap.first else { return }
        let at = max(first.due, earliest)
        if let wake {
            guard at < wake.at else { return }
            wake.callback.cancel()
        }
        do {
            let callback = try eventLoop.assumeIsolated().scheduleCallback(at: .uptimeNanoseconds(at), handler: Alarm(clock: self))
            wake = (at, callback)
        } catch {
            // The loop is shutting down: its channels close, which ends their answers.
            wake = nil
        }
    }

    /// Calls the objects that are due, at most `firingsATurn`, and schedules the next turn.
    fileprivate func fireDue() {
        wake = nil
        isFiring = true
        let now = Self.now
        var fired = 0
        while fired < Self.firingsATurn, let first = heap.first, first.due <= now {
            first.isWaiting = false
            first.fire(at: now)
            if !first.isWaiting { cancel(first) }
            fired += 1
        }
        isFiring = false
        let more = heap.first.map { $0.due <= now } ?? false
        let finished = Self.now
        arm(notBefore: finished + (more ? Self.pollDelay : tick))
    }

    // MARK: the heap

    private func siftUp(_ start: Int) {
        var position = start
        let timed = heap[position]
        while position > 0 {
            let parent = (position - 1) / 4
            guard timed.due < heap[parent].due else { break }
            heap[position] = heap[parent]
            heap[position].position = position
            position = parent
        }
        heap[position] = timed
        timed.position = position
    }

    private func siftDown(_ start: Int) {
        var position = start
        let timed = heap[position]
        while true {
            let first = 4 * position + 1
            guard first < heap.count else { break }
            var least = first
            for child in first + 1..<max(first + 1, min(first + 4, heap.count)) where heap[child].due < heap[least].due { least = child }
            guard heap[least].due < timed.due else { break }
            heap[position] = heap[least]
            heap[position].position = position
            position = least
        }
        heap[position] = timed
        timed.position = position
    }
}

/// The callback of the event loop's timer.
private struct Alarm: NIOScheduledCallbackHandler {
    let clock: TokenClock

    func handleScheduledCallback(eventLoop: some EventLoop) { clock.fireDue() }
}
