import Glibc

/// The system's real-time clock. It may step; use `NIODeadline` or `ContinuousClock` for intervals.
enum WallClock {
    /// Milliseconds since 1970. Costs a few nanoseconds; it is read for every frame.
    static var milliseconds: Int {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    /// Seconds since 1970.
    static var seconds: Int { milliseconds / 1000 }
}
