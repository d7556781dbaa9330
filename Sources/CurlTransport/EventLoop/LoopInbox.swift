import Support

/// One piece of work for a loop: a job of the concurrency runtime or a plain closure.
enum LoopWork {
    case job(UnownedJob)
    case body(() -> Void)
}

/// The queue through which other threads give work to an event loop. It tracks whether the loop must be woken.
///
/// Uses `PthreadMutex` instead of `Synchronization.Mutex` because the thread sanitizer understands it.
final class LoopInbox: @unchecked Sendable {
    /// The result of adding work or requesting a stop.
    enum Receipt {
        /// The loop is awake or was already woken; it takes the work before it waits.
        case accepted
        /// The loop is waiting; the caller must wake it.
        case wake
        /// The loop has ended and runs no more work.
        case refused
    }

    private let mutex = PthreadMutex()
    private var work: [LoopWork] = []
    private var isAsleep = false
    private var isStopping = false
    private var hasEnded = false

    /// Adds work. Any thread.
    func put(_ item: LoopWork) -> Receipt {
        mutex.withLock {
            if hasEnded { return .refused }
            work.append(item)
            return wakeIfAsleep()
        }
    }

    /// Requests the end of the loop. Any thread.
    func stop() -> Receipt {
        mutex.withLock {
            if hasEnded { return .refused }
            isStopping = true
            return wakeIfAsleep()
        }
    }

    private func wakeIfAsleep() -> Receipt {
        guard isAsleep else { return .accepted }
        isAsleep = false
        return .wake
    }

    /// Marks the loop as waiting unless there is work. Called on the loop before it waits; after true, the next `put` returns `.wake`.
    func fallAsleep() -> Bool {
        mutex.withLock {
            guard work.isEmpty, !isStopping else { return false }
            isAsleep = true
            return true
        }
    }

    /// Swaps the queued work with `batch`, which must be empty; its capacity is reused. Called on the loop after it waited.
    func take(_ batch: inout [LoopWork]) {
        mutex.withLock {
            isAsleep = false
            swap(&work, &batch)
        }
    }

    /// Marks the loop as ended if a stop was requested and no work is left. Later work is refused. Called on the loop.
    func endIfStopping() -> Bool {
        mutex.withLock {
            guard isStopping, work.isEmpty else { return false }
            hasEnded = true
            return true
        }
    }
}
