import NIOCore

/// Something that a `TokenClock` wakes. Its two fields belong to the clock.
class Timed {
    /// Nanoseconds of CLOCK_MONOTONIC.
    fileprivate(set) final var due: UInt64 = 0
    /// Where it stands in the clock's heap; -1: it is not waiting.
    fileprivate final var position = -1

    /// Called at `due` or up to a tick later; it is not waiting then, and may wait again.
    func fire(at now: UInt64) {}
}

/// One loop's timers, gathered: however many answers are under way, the event loop sees one timer at a time.
///
/// A heap ordered by due time, four children a node. Answers due within one tick are written in one turn of the loop, at most
/// `firingsATurn` of them before the sockets are looked at again, so that a close is noticed at once under full load too.
final class TokenClock {
    private let eventLoop: any EventLoop
    private let tick: UInt64
    private var heap: [Timed] = []
    private var wake: (at: UInt64, callback: NIOScheduledCallback)?
    private var isFiring = false
    /// What answers write their bytes into: each write is handed to the socket before the next one begins, so one storage serves all.
    var writer = ChunkWriter()

    private static let firingsATurn = 32
    /// The loop runs what is due without looking at its sockets: to make it look, the next turn is put this far (ns) into the future.
    private static let breath: UInt64 = 15_000

    /// - Parameter tick: nanoseconds between two turns under load.
    init(eventLoop: any EventLoop, tick: UInt64) {
        self.eventLoop = eventLoop
        self.tick = tick
    }

    static var now: UInt64 { NIODeadline.now().uptimeNanoseconds }

    var waiting: Int { heap.count }

    func wait(_ timed: Timed, until due: UInt64) {
        timed.due = due
        if timed.position < 0 {
            timed.position = heap.count
            heap.append(timed)
        }
        siftUp(timed.position)
        siftDown(timed.position)
        if !isFiring { arm(notBefore: 0) }
    }

    func cancel(_ timed: Timed) {
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
            // The loop is shutting down: its channels close, and their answers end with them.
            wake = nil
        }
    }

    fileprivate func ring() {
        wake = nil
        isFiring = true
        let now = Self.now
        var fired = 0
        while fired < Self.firingsATurn, let first = heap.first, first.due <= now {
            cancel(first)
            first.fire(at: now)
            fired += 1
        }
        isFiring = false
        let more = heap.first.map { $0.due <= now } ?? false
        let finished = Self.now
        arm(notBefore: finished + (more ? Self.breath : tick))
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

private struct Alarm: NIOScheduledCallbackHandler {
    let clock: TokenClock

    func handleScheduledCallback(eventLoop: some EventLoop) { clock.ring() }
}
