import Glibc
import Support
import Synchronization

/// An epoll loop on its own thread, and a `SerialExecutor`: an actor pinned to it runs on the thread that serves the sockets, without
/// thread hops or locks.
///
/// Each turn waits for events of at most 16 descriptors and handles them, fires due timers, runs the work that was queued by then, and runs
/// the `atEndOfTurn` closures. Work queued during a turn waits for the next one, so neither work nor sockets starve the other.
///
/// It does not conform to `TaskExecutor`: that would enqueue again on every hop to the same loop (swiftlang/swift#85668).
package final class EpollLoop: SerialExecutor, @unchecked Sendable {
    private let name: String
    private let inbox = LoopInbox()
    private let wakeup: Wakeup
    /// `pthread_self` of the loop's thread; 0 before the thread runs and after it has ended.
    private let thread = Atomic<UInt>(0)
    private let hasStarted = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    /// The number of other threads that are inside `put`. The loop's thread waits for them before it releases the loop: a job may run, and
    /// the last reference to its actor and to the loop disappear, before the `put` that queued the job has returned.
    private let putting = Atomic<Int>(0)

    // The properties below belong to the loop's thread (and to `init`).
    private var poller: Poller
    private var timers = LoopTimers()
    /// Work queued on the loop's own thread for the next batch.
    private var local: [LoopWork] = []
    private var endOfTurn: [() -> Void] = []

    /// - Parameter name: Name of the thread; the kernel keeps the first 15 bytes.
    /// - Throws: `LoopError` if the eventfd or the epoll instance cannot be created.
    package init(name: String) throws(LoopError) {
        self.name = name
        wakeup = try Wakeup()
        poller = try Poller(wakeup: wakeup)
    }

    /// Starts the thread. A second call does nothing. Work that was enqueued before runs first.
    package func start() {
        guard !hasStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        let created = SystemThread.start { [self] in main() }
        precondition(created == 0, "cannot create the thread of event loop \(name): pthread_create failed with error \(created)")
    }

    /// The thread's body. The thread holds the loop until it ends.
    private func main() {
        nameThread(name)
        thread.store(UInt(pthread_self()), ordering: .releasing)
        run()
        // The system may reuse the thread id; another thread must not pass `isOnLoop`.
        thread.store(0, ordering: .releasing)
        hasEnded.store(true, ordering: .releasing)
        while putting.load(ordering: .acquiring) > 0 { sched_yield() }
    }

    /// Ends the thread after the current turn, once all queued work has run. May be called from any thread and repeatedly.
    ///
    /// Afterwards `enqueue` traps, because the job's task would never resume, and `execute` drops its closure.
    package func stop() {
        if inbox.stop() == .wake { wakeup.signal() }
    }

    // MARK: from any thread

    /// Current time, nanoseconds of CLOCK_MONOTONIC.
    package var now: UInt64 { MonotonicClock.nanoseconds }

    /// True from `start` until the thread has run its last work.
    package var isRunning: Bool { hasStarted.load(ordering: .acquiring) && !hasEnded.load(ordering: .acquiring) }

    private var isOnLoop: Bool { thread.load(ordering: .acquiring) == UInt(pthread_self()) }

    /// Runs a closure on the loop, in the next batch of work if called on the loop itself. Drops the closure if the loop has ended.
    package func execute(_ body: @escaping @Sendable () -> Void) { put(.body(body)) }

    /// Runs a job of the concurrency runtime on the loop. Traps if the loop has ended.
    package func enqueue(_ job: consuming ExecutorJob) { put(.job(UnownedJob(job))) }

    /// Queues work. If the loop has ended, drops a closure and traps on a job.
    ///
    /// The concurrency runtime holds no reference to an executor while it enqueues a job. Nothing may therefore follow the last access to
    /// `putting`.
    private func put(_ work: LoopWork) {
        if isOnLoop { return local.append(work) }
        putting.add(1, ordering: .relaxed)
        switch inbox.put(work) {
        case .accepted: break
        case .wake: wakeup.signal()
        case .refused:
            if case .job = work { fatalError("job enqueued on event loop \(name) after it ended; the job's task would never resume") }
        }
        putting.subtract(1, ordering: .releasing)
    }

    package func isIsolatingCurrentContext() -> Bool? { isOnLoop }

    package func checkIsolated() { preconditionOnLoop() }

    // MARK: on the loop only

    /// Traps unless called on the loop's thread.
    func preconditionOnLoop() { precondition(isOnLoop, "event loop \(name) used from another thread; call this on the loop") }

    /// Runs a closure once after a delay. The closure is released after it has run or was cancelled.
    package func schedule(after delay: Duration, _ body: @escaping () -> Void) -> LoopTimer {
        let timer = LoopTimer(oneShot: true, body)
        set(timer, after: delay)
        return timer
    }

    /// Sets a timer made with `LoopTimer.init`. The timer may be set already, have fired or be cancelled. Allocates nothing.
    /// - Parameter delay: Negative delays count as 0; the maximum is 100 years.
    package func set(_ timer: LoopTimer, after delay: Duration) {
        preconditionOnLoop()
        timers.set(timer, deadline: now + delay.timeoutNanoseconds)
    }

    /// Cancels a timer. Does nothing if the timer has fired or is not set.
    package func cancel(_ timer: LoopTimer) {
        preconditionOnLoop()
        timers.remove(timer)
        timer.release()
    }

    /// Runs a closure once after all events and work of this turn, before epoll waits again.
    package func atEndOfTurn(_ body: @escaping () -> Void) {
        preconditionOnLoop()
        endOfTurn.append(body)
    }

    /// Watches a descriptor (level-triggered), or changes which events are watched.
    /// - Throws: `LoopError` if the kernel refuses the watch.
    func watch(_ descriptor: Int32, read: Bool, write: Bool, handler: any DescriptorHandler) throws(LoopError) {
        preconditionOnLoop()
        try poller.watch(descriptor, read: read, write: write, handler: handler)
    }

    /// Stops watching a descriptor.
    func forget(_ descriptor: Int32) {
        preconditionOnLoop()
        poller.forget(descriptor)
    }

    /// Queues a closure like `execute`; the closure need not be sendable because it stays on the loop.
    func queue(_ body: @escaping () -> Void) {
        preconditionOnLoop()
        local.append(.body(body))
    }

    // MARK: the turn

    /// Runs turns until a stop was requested and no work is left.
    private func run() {
        var batch: [LoopWork] = []
        var localBatch: [LoopWork] = []
        var endOfTurnBatch: [() -> Void] = []
        repeat {
            let count = poller.wait(milliseconds: waitMilliseconds())
            for index in 0..<count {
                // Look each event up only now: an earlier handler of this turn may have closed its descriptor.
                guard let ready = poller.ready(index) else { continue }
                ready.handler.descriptorReady(
                    ready.descriptor, readable: ready.readable, writable: ready.writable, failed: ready.failed)
            }
            runDueTimers()
            inbox.take(&batch)
            swap(&local, &localBatch)
            run(&localBatch)
            run(&batch)
            swap(&endOfTurn, &endOfTurnBatch)
            for body in endOfTurnBatch { body() }
            endOfTurnBatch.removeAll(keepingCapacity: true)
        } while !(local.isEmpty && endOfTurn.isEmpty && inbox.endIfStopping())
    }

    private func run(_ batch: inout [LoopWork]) {
        for work in batch {
            switch work {
            case .job(let job): job.run(on: self)
            case .body(let body): body()
            }
        }
        batch.removeAll(keepingCapacity: true)
    }

    /// Fires the timers that are due. Timers set by their closures wait for the next turn.
    private func runDueTimers() {
        guard let next = timers.nextDeadline else { return }
        let now = now
        guard next <= now else { return }
        let bound = timers.sequenceBound
        while let timer = timers.popDue(now: now, before: bound) { timer.fire() }
    }

    /// Milliseconds that `epoll_wait` may block, rounded up so that timers never fire early; -1 without a limit.
    private func waitMilliseconds() -> Int32 {
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
