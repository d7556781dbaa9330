import Glibc
import Support

/// The time of day, for response fields that contain it. Pacing uses `TokenClock` instead.
enum ResponseTime {
    /// The current time as RFC 3339 in UTC, with nanoseconds.
    static var timestamp: String {
        var (seconds, nanoseconds) = WallClock.secondsAndNanoseconds
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ number: Int, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = [(Int(parts.tm_year) + 1900, 4), (Int(parts.tm_mon) + 1, 2), (Int(parts.tm_mday), 2)].map(padded).joined(separator: "-")
        let day = [(Int(parts.tm_hour), 2), (Int(parts.tm_min), 2), (Int(parts.tm_sec), 2)].map(padded).joined(separator: ":")
        return date + "T" + day + "." + padded(nanoseconds, 9) + "Z"
    }
}
