import Glibc

/// The system's wall clock (CLOCK_REALTIME). It may step backwards or forwards: never use it to measure an interval.
package enum WallClock {
    /// Milliseconds since 1970-01-01 UTC. Costs a few nanoseconds (vDSO).
    package static var milliseconds: Int {
        let time = now
        return time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    /// Seconds since 1970-01-01 UTC.
    package static var seconds: Int { now.tv_sec }

    /// Nanoseconds within the current second, 0 to 999,999,999, with the second they belong to.
    package static var secondsAndNanoseconds: (seconds: Int, nanoseconds: Int) {
        let time = now
        return (time.tv_sec, time.tv_nsec)
    }

    private static var now: timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time
    }
}

/// The system's monotonic clock (CLOCK_MONOTONIC), comparable between processes of one machine.
package enum MonotonicClock {
    /// Nanoseconds since an arbitrary start, usually the machine's boot.
    package static var nanoseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
