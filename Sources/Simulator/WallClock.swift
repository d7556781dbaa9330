import Glibc

/// The time of day, for response fields that contain it. Pacing uses `TokenClock` instead.
enum WallClock {
    /// Seconds since 1970.
    static var seconds: Int { time(nil) }

    /// The current time as RFC 3339 in UTC, with nanoseconds.
    static var timestamp: String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var parts = tm()
        gmtime_r(&now.tv_sec, &parts)
        func padded(_ number: Int, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = [(Int(parts.tm_year) + 1900, 4), (Int(parts.tm_mon) + 1, 2), (Int(parts.tm_mday), 2)].map(padded).joined(separator: "-")
        let day = [(Int(parts.tm_hour), 2), (Int(parts.tm_min), 2), (Int(parts.tm_sec), 2)].map(padded).joined(separator: ":")
        return date + "T" + day + "." + padded(now.tv_nsec, 9) + "Z"
    }
}
