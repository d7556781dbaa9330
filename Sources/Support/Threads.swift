import Glibc

/// A thread that runs one closure.
package enum SystemThread {
    /// The closure of a thread, as an object that C can hold.
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Starts a detached thread. The closure is released when it has returned.
    /// - Returns: 0, or the error number of pthread_create(3).
    package static func start(_ body: @escaping @Sendable () -> Void) -> Int32 {
        var id = pthread_t()
        // The thread takes over this reference.
        let context = unsafe Unmanaged.passRetained(Body(body))
        let result = unsafe pthread_create(
            &id, nil,
            { context in
                if let context = unsafe context { unsafe Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            }, context.toOpaque())
        if result == 0 { pthread_detach(id) } else { unsafe context.release() }
        return result
    }
}

/// A lock that blocks its thread. Unlike `Synchronization.Mutex`, the thread sanitizer understands it.
@safe
package struct PthreadMutex: ~Copyable, @unchecked Sendable {
    // On the heap, because a pthread mutex must not move.
    @usableFromInline let mutex: UnsafeMutablePointer<pthread_mutex_t>

    package init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe mutex.initialize(to: pthread_mutex_t())
        unsafe pthread_mutex_init(mutex, nil)
    }

    deinit {
        unsafe pthread_mutex_destroy(mutex)
        unsafe mutex.deallocate()
    }

    /// Runs a closure while no other thread holds the lock. Not recursive.
    @inlinable
    package borrowing func withLock<Value>(_ body: () -> Value) -> Value {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return body()
    }
}
