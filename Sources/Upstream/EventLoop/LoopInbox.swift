import Glibc

/// One piece of work for a loop: a job of the concurrency runtime or a plain closure.
enum LoopWork {
    case job(UnownedJob)
    case body(() -> Void)
}

/// Where other threads leave work for a loop, and how they know whether it must be woken.
///
/// A pthread mutex and not `Synchronization.Mutex`: the thread sanitizer understands it.
final class LoopInbox: @unchecked Sendable {
    enum Receipt {
        /// The loop is awake, or was woken already: it will look before it sleeps.
        case accepted
        /// The loop sleeps and the caller must wake it.
        case wake
        /// The loop has ended and runs nothing any more.
        case refused
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private var work: [LoopWork] = []
    private var isAsleep = false
    private var isStopping = false
    private var hasEnded = false

    init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    private func locked<Value>(_ body: () -> Value) -> Value {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    func put(_ item: LoopWork) -> Receipt {
        locked {
            if hasEnded { return .refused }
            work.append(item)
            return wakeIfAsleep()
        }
    }

    func stop() -> Receipt {
        locked {
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

    /// On the loop, before it waits: true if it may sleep, since there is nothing to do and every later `put` will wake it.
    func fallAsleep() -> Bool {
        locked {
            guard work.isEmpty, !isStopping else { return false }
            isAsleep = true
            return true
        }
    }

    /// On the loop, after it waited: what has come is swapped with `batch`, which is empty (its capacity is used again).
    func take(_ batch: inout [LoopWork]) {
        locked {
            isAsleep = false
            swap(&work, &batch)
        }
    }

    /// On the loop: true once it was told to stop and nothing is left; from then on everything is refused.
    func endIfStopping() -> Bool {
        locked {
            guard isStopping, work.isEmpty else { return false }
            hasEnded = true
            return true
        }
    }
}
