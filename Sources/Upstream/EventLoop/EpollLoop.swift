import CEpoll
import Glibc
import Synchronization

/// An epoll loop on a thread of its own that is a `SerialExecutor`: an actor pinned to it runs beside the sockets, without a hop and
/// without a lock.
///
/// A turn is: wait for at most 16 descriptors' events and hand them out, run the timers that are due, run the work that had come by then,
/// then what asked for the end of the turn. Work that arises during a batch waits for the next turn, so that neither work nor sockets
/// starve the other.
///
/// It is no `TaskExecutor` on purpose: that would enqueue again on every hop to the same loop (swiftlang/swift#85668).
package final class EpollLoop: SerialExecutor, @unchecked Sendable {
    private let name: String
    private let inbox = LoopInbox()
    private let wakeup: Wakeup
    /// pthread_self of the loop's thread; 0 before it runs.
    private let thread = Atomic<UInt>(0)
    private let hasStarted = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)

    // Below: of the loop's thread alone (and of `init`).
    private var poller: Poller
    private var timers = LoopTimers()
    private var local: [LoopWork] = []
    private var endOfTurn: [() -> Void] = []

    /// - Parameter name: of the thread; the system shows its first 15 bytes.
    package init(name: String) throws(LoopError) {
        self.name = name
        wakeup = try Wakeup()
        poller = try Poller(wakeup: wakeup)
    }

    /// Starts the thread; a second call does nothing. What was enqueued before runs first.
    package func start() {
        guard !hasStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        var id = pthread_t()
        let created = pthread_create(&id, nil, { EpollLoop.main($0) }, Unmanaged.passRetained(self).toOpaque())
        precondition(created == 0, "a thread for the loop could not be made")
        pthread_detach(id)
    }

    /// Balances `start`'s retain: the thread holds its loop until it ends.
    private static func main(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
        guard let context else { return nil }
        let loop = Unmanaged<EpollLoop>.fromOpaque(context).takeRetainedValue()
        sluice_name_thread(loop.name)
        loop.thread.store(UInt(pthread_self()), ordering: .releasing)
        loop.run()
        // Its number may be given to another thread, which must not be taken for the loop's.
        loop.thread.store(0, ordering: .releasing)
        loop.hasEnded.store(true, ordering: .releasing)
        return nil
    }

    /// Ends the thread after the turn, once the work that it has is done. Any thread, any number of times.
    ///
    /// Later a job that is enqueued traps (its task would hang for ever), while `execute` does nothing.
    package func stop() {
        if inbox.stop() == .wake { wakeup.signal() }
    }

    // MARK: any thread

    package var now: UInt64 { Self.monotonicNanoseconds }

    private static var monotonicNanoseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// From `start` until the thread has done its last work.
    package var isRunning: Bool { hasStarted.load(ordering: .acquiring) && !hasEnded.load(ordering: .acquiring) }

    private var isOnLoop: Bool { thread.load(ordering: .acquiring) == UInt(pthread_self()) }

    /// Runs a closure on the loop: in this turn's next batch when called there. A closure given after the loop ended is dropped.
    package func execute(_ body: @escaping @Sendable () -> Void) { _ = put(.body(body)) }

    package func enqueue(_ job: consuming ExecutorJob) {
        let accepted = put(.job(UnownedJob(job)))
        precondition(accepted, "a job was enqueued on the loop after it had ended; its task would never go on")
    }

    private func put(_ work: LoopWork) -> Bool {
        if isOnLoop {
            local.append(work)
            return true
        }
        switch inbox.put(work) {
        case .accepted: return true
        case .wake:
            wakeup.signal()
            return true
        case .refused: return false
        }
    }

    package func isIsolatingCurrentContext() -> Bool? { isOnLoop }

    package func checkIsolated() { preconditionOnLoop() }

    // MARK: on the loop only

    func preconditionOnLoop() { precondition(isOnLoop, "this belongs on the loop's own thread") }

    /// Runs a closure once; it is released when it has run or is cancelled.
    package func schedule(after delay: Duration, _ body: @escaping () -> Void) -> LoopTimer {
        let timer = LoopTimer(oneShot: true, body)
        set(timer, after: delay)
        return timer
    }

    /// Sets a timer made with `LoopTimer.init` (again), also one that has fired or was cancelled, without allocating anything.
    package func set(_ timer: LoopTimer, after delay: Duration) {
        preconditionOnLoop()
        let (seconds, attoseconds) = delay.components
        let nanoseconds = max(0, min(seconds, 1_000_000_000) * 1_000_000_000 + attoseconds / 1_000_000_000)
        timers.set(timer, deadline: now + UInt64(nanoseconds))
    }

    /// Cancelling one that has fired or is not set does nothing.
    package func cancel(_ timer: LoopTimer) {
        preconditionOnLoop()
        timers.remove(timer)
        timer.release()
    }

    /// Runs once, after all events and work of this turn, before epoll waits again.
    package func atEndOfTurn(_ body: @escaping () -> Void) {
        preconditionOnLoop()
        endOfTurn.append(body)
    }

    func watch(_ descriptor: Int32, read: Bool, write: Bool, handler: any DescriptorHandler) throws(LoopError) {
        preconditionOnLoop()
        try poller.watch(descriptor, read: read, write: write, handler: handler)
    }

    func forget(_ descriptor: Int32) {
        preconditionOnLoop()
        poller.forget(descriptor)
    }

    /// As `execute`, for closures that stay on the loop.
    func queue(_ body: @escaping () -> Void) {
        preconditionOnLoop()
        local.append(.body(body))
    }

    // MARK: the turn

    private func run() {
        let executor = asUnownedSerialExecutor()
        var batch: [LoopWork] = []
        var localBatch: [LoopWork] = []
        var ending: [() -> Void] = []
        repeat {
            let count = poller.wait(milliseconds: waitingTime())
            for index in 0..<count {
                // Asked one by one: a handler may close the descriptors of events behind it.
                guard let ready = poller.ready(index) else { continue }
                ready.handler.descriptorReady(
                    ready.descriptor, readable: ready.readable, writable: ready.writable, failed: ready.failed)
            }
            runDueTimers()
            inbox.take(&batch)
            swap(&local, &localBatch)
            Self.run(&localBatch, on: executor)
            Self.run(&batch, on: executor)
            swap(&endOfTurn, &ending)
            for body in ending { body() }
            ending.removeAll(keepingCapacity: true)
        } while !(local.isEmpty && endOfTurn.isEmpty && inbox.endIfStopping())
    }

    private static func run(_ batch: inout [LoopWork], on executor: UnownedSerialExecutor) {
        for work in batch {
            switch work {
            case .job(let job): job.runSynchronously(on: executor)
            case .body(let body): body()
            }
        }
        batch.removeAll(keepingCapacity: true)
    }

    private func runDueTimers() {
        guard let next = timers.nextDeadline else { return }
        let now = now
        guard next <= now else { return }
        let bound = timers.sequenceBound
        while let timer = timers.popDue(now: now, before: bound) { timer.fire() }
    }

    /// Milliseconds that epoll may wait, rounded up: a timer never fires early.
    private func waitingTime() -> Int32 {
        guard local.isEmpty, endOfTurn.isEmpty else { return 0 }
        var milliseconds: Int32 = -1
        if let deadline = timers.nextDeadline {
            let now = now
            guard deadline > now else { return 0 }
            milliseconds = Int32(min((deadline - now + 999_999) / 1_000_000, 3_600_000))
        }
        return inbox.fallAsleep() ? milliseconds : 0
    }
}
