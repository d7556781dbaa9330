import Glibc

/// The system's wall clock (CLOCK_REALTIME). It may jump backwards or forwards, so never measure intervals with it.
package enum WallClock {
    /// Milliseconds since 1970-01-01 UTC. Costs a few nanoseconds (vDSO).
    package static var milliseconds: Int {
        let time = now
        return time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    /// Seconds since 1970-01-01 UTC.
    package static var seconds: Int { now.tv_sec }

    /// Seconds since 1970-01-01 UTC, and nanoseconds within that second (0 to 999,999,999).
    package static var secondsAndNanoseconds: (seconds: Int, nanoseconds: Int) {
        let time = now
        return (time.tv_sec, time.tv_nsec)
    }

    private static var now: timespec { SystemCalls.time(of: CLOCK_REALTIME) }
}

/// The system's monotonic clock (CLOCK_MONOTONIC). Its values are comparable between processes on one machine.
package enum MonotonicClock {
    /// Nanoseconds since an arbitrary point in time, usually the boot of the machine.
    package static var nanoseconds: UInt64 {
        let time = SystemCalls.time(of: CLOCK_MONOTONIC)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
