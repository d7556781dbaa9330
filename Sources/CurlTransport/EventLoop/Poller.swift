import CEpoll
import Glibc

/// Receives readiness events of file descriptors, on the event loop.
protocol DescriptorHandler: AnyObject {
    /// Called once for each event. `failed` reports an error or hang-up, and may come with the other two.
    func descriptorReady(_ descriptor: Int32, readable: Bool, writable: Bool, failed: Bool)
}

/// An eventfd that wakes a waiting epoll, from any thread.
final class Wakeup: Sendable {
    fileprivate let descriptor: Int32

    init() throws(LoopError) {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard descriptor >= 0 else { throw LoopError(call: "eventfd", number: errno) }
    }

    deinit { close(descriptor) }

    /// Wakes the waiting epoll. Any thread.
    func signal() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor, &one, 8)
    }
}

/// An epoll instance with the handlers of its descriptors. Used on the loop's thread only.
@safe
struct Poller: ~Copyable {
    /// Maximum number of events per turn. It is small because an interrupt waits for the events of its turn, about 10 µs each.
    private static let capacity = 16
    /// Event tag of the eventfd.
    private static let wakeTag = UInt64.max

    private struct Registration {
        /// Distinguishes events of this registration from those of an earlier one with the same descriptor number.
        var generation: UInt32 = 0
        var handler: (any DescriptorHandler)?
    }

    private let epoll: Int32
    private let wakeup: Wakeup
    private let events: UnsafeMutablePointer<epoll_event>
    /// Indexed by descriptor: descriptor numbers are small and dense.
    private var registrations: [Registration] = []

    init(wakeup: Wakeup) throws(LoopError) {
        self.wakeup = wakeup
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw LoopError(call: "epoll_create1", number: errno) }
        // Edge-triggered: every write causes a new event, so the counter need not be read. It cannot overflow before 2^64 wake-ups.
        var event = unsafe epoll_event(events: EPOLLIN.rawValue | EPOLLET.rawValue, data: epoll_data_t(u64: Self.wakeTag))
        guard unsafe epoll_ctl(epoll, EPOLL_CTL_ADD, wakeup.descriptor, &event) == 0 else {
            let number = errno
            close(epoll)
            throw LoopError(call: "epoll_ctl", number: number)
        }
        unsafe events = .allocate(capacity: Self.capacity)
    }

    deinit {
        close(epoll)
        unsafe events.deallocate()
    }

    /// Waits for events and returns their number, at most `capacity`. `ready` returns each of them.
    /// - Parameter milliseconds: Maximum wait; -1 without a limit, 0 without waiting.
    func wait(milliseconds: Int32) -> Int {
        let count = unsafe epoll_wait(epoll, events, Int32(Self.capacity), milliseconds)
        // Any error except EINTR means that the loop itself is broken (a closed descriptor). Continuing would spin.
        precondition(count >= 0 || errno == EINTR, "epoll_wait failed with errno \(errno)")
        return max(0, Int(count))
    }

    /// One event, with the handler of its descriptor.
    struct Ready {
        var descriptor: Int32
        var handler: any DescriptorHandler
        var readable: Bool
        var writable: Bool
        var failed: Bool
    }

    /// Returns the event at an index below the result of `wait`; nil for the wake-up and for a registration that no longer exists.
    func ready(_ index: Int) -> Ready? {
        let (tag, bits) = unsafe (events[index].data.u64, events[index].events)
        guard tag != Self.wakeTag else { return nil }
        let descriptor = Int32(truncatingIfNeeded: tag & 0xFFFF_FFFF)
        let registration = registrations[Int(descriptor)]
        guard registration.generation == UInt32(tag >> 32), let handler = registration.handler else { return nil }
        return Ready(
            descriptor: descriptor, handler: handler,
            readable: bits & (EPOLLIN.rawValue | EPOLLPRI.rawValue | EPOLLRDHUP.rawValue) != 0,
            writable: bits & EPOLLOUT.rawValue != 0,
            failed: bits & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0)
    }

    /// Watches a descriptor (level-triggered), or changes which events are watched.
    /// - Throws: `LoopError` if `epoll_ctl` fails.
    mutating func watch(_ descriptor: Int32, read: Bool, write: Bool, handler: any DescriptorHandler) throws(LoopError) {
        let index = Int(descriptor)
        while registrations.count <= index { registrations.append(Registration()) }
        let isKnown = registrations[index].handler === handler
        if !isKnown {
            registrations[index].generation &+= 1
            registrations[index].handler = handler
        }
        let tag = UInt64(registrations[index].generation) << 32 | UInt64(UInt32(descriptor))
        let events = (read ? EPOLLIN.rawValue : 0) | (write ? EPOLLOUT.rawValue : 0)
        var event = unsafe epoll_event(events: events, data: epoll_data_t(u64: tag))
        var result = unsafe epoll_ctl(epoll, isKnown ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &event)
        // The kernel drops a closed descriptor, and libcurl may close one and open another with the same number without a callback in
        // between.
        if result != 0, errno == ENOENT {
            result = unsafe epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event)
        } else if result != 0, errno == EEXIST {
            result = unsafe epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event)
        }
        guard result == 0 else { throw LoopError(call: "epoll_ctl", number: errno) }
    }

    /// Stops watching a descriptor. Ignores descriptors that are closed or were never watched.
    mutating func forget(_ descriptor: Int32) {
        guard registrations.indices.contains(Int(descriptor)) else { return }
        registrations[Int(descriptor)].handler = nil
        var event = unsafe epoll_event()
        _ = unsafe epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, &event)
    }
}

/// Names the calling thread; the kernel keeps the first 15 bytes.
func nameThread(_ name: String) { unsafe sluice_name_thread(name) }
