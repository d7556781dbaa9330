import CEpoll
import Glibc

/// Who is told that a descriptor can be read or written.
protocol DescriptorHandler: AnyObject {
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

    func signal() {
        var one: UInt64 = 1
        _ = write(descriptor, &one, 8)
    }
}

/// epoll and who is told of which descriptor. Of one loop's thread.
struct Poller: ~Copyable {
    /// Small, because an interrupt waits for the events of its turn, some 10 us each.
    private static let capacity = 16
    private static let wakeTag = UInt64.max

    private struct Registration {
        /// Tells events of this registration from those of an earlier one whose descriptor had the same number.
        var generation: UInt32 = 0
        var handler: (any DescriptorHandler)?
    }

    private let epoll: Int32
    private let wakeup: Wakeup
    private let events: UnsafeMutablePointer<epoll_event>
    /// By descriptor: their numbers are small and dense.
    private var registrations: [Registration] = []

    init(wakeup: Wakeup) throws(LoopError) {
        self.wakeup = wakeup
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw LoopError(call: "epoll_create1", number: errno) }
        // Edge-triggered: each write is an event of its own and nobody need read the counter, which cannot overflow in 2^64 wakes.
        var event = epoll_event(events: EPOLLIN.rawValue | EPOLLET.rawValue, data: epoll_data_t(u64: Self.wakeTag))
        guard epoll_ctl(epoll, EPOLL_CTL_ADD, wakeup.descriptor, &event) == 0 else {
            let number = errno
            close(epoll)
            throw LoopError(call: "epoll_ctl", number: number)
        }
        events = .allocate(capacity: Self.capacity)
    }

    deinit {
        close(epoll)
        events.deallocate()
    }

    /// Waits, and says how many events (at most `capacity`) can be asked for.
    /// - Parameter milliseconds: -1 for ever, 0 not at all.
    func wait(milliseconds: Int32) -> Int {
        let count = epoll_wait(epoll, events, Int32(Self.capacity), milliseconds)
        // EINTR is no event. Any other error means that the loop itself is broken (a closed descriptor), and going on would spin silently.
        precondition(count >= 0 || errno == EINTR, "epoll_wait failed")
        return max(0, Int(count))
    }

    struct Ready {
        var descriptor: Int32
        var handler: any DescriptorHandler
        var readable: Bool
        var writable: Bool
        var failed: Bool
    }

    /// The event at a place below what `wait` returned; nil if it is the wake-up or its registration is gone.
    func ready(_ index: Int) -> Ready? {
        let tag = events[index].data.u64
        guard tag != Self.wakeTag else { return nil }
        let descriptor = Int32(truncatingIfNeeded: tag & 0xFFFF_FFFF)
        let registration = registrations[Int(descriptor)]
        guard registration.generation == UInt32(tag >> 32), let handler = registration.handler else { return nil }
        let bits = events[index].events
        return Ready(
            descriptor: descriptor, handler: handler,
            readable: bits & (EPOLLIN.rawValue | EPOLLPRI.rawValue | EPOLLRDHUP.rawValue) != 0,
            writable: bits & EPOLLOUT.rawValue != 0,
            failed: bits & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0)
    }

    /// Watches a descriptor, level-triggered, or changes what it is watched for.
    mutating func watch(_ descriptor: Int32, read: Bool, write: Bool, handler: any DescriptorHandler) throws(LoopError) {
        let index = Int(descriptor)
        while registrations.count <= index { registrations.append(Registration()) }
        let isKnown = registrations[index].handler === handler
        if !isKnown {
            registrations[index].generation &+= 1
            registrations[index].handler = handler
        }
        let tag = UInt64(registrations[index].generation) << 32 | UInt64(UInt32(descriptor))
        var event = epoll_event(events: (read ? EPOLLIN.rawValue : 0) | (write ? EPOLLOUT.rawValue : 0), data: epoll_data_t(u64: tag))
        var result = epoll_ctl(epoll, isKnown ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &event)
        // The kernel forgets a descriptor that is closed, and libcurl may close one and open another of its number without a word in
        // between.
        if result != 0, errno == ENOENT {
            result = epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event)
        } else if result != 0, errno == EEXIST {
            result = epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event)
        }
        guard result == 0 else { throw LoopError(call: "epoll_ctl", number: errno) }
    }

    /// Forgets a descriptor; one that is closed already or was never watched is no error.
    mutating func forget(_ descriptor: Int32) {
        guard registrations.indices.contains(Int(descriptor)) else { return }
        registrations[Int(descriptor)].handler = nil
        var event = epoll_event()
        _ = epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, &event)
    }
}
