import Glibc

enum WallClock {
    /// Milliseconds since 1970. Costs a few nanoseconds: every frame states it.
    static var milliseconds: Int {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    /// Seconds since 1970.
    static var seconds: Int { milliseconds / 1000 }
}
