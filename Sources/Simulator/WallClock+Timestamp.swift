import Glibc
import Support

extension WallClock {
    /// The current time in UTC with nanoseconds, in the form of RFC 3339.
    static var timestamp: String {
        let now = secondsAndNanoseconds
        var seconds = time_t(now.seconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ number: Int, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = [(Int(parts.tm_year) + 1900, 4), (Int(parts.tm_mon) + 1, 2), (Int(parts.tm_mday), 2)].map(padded).joined(separator: "-")
        let day = [(Int(parts.tm_hour), 2), (Int(parts.tm_min), 2), (Int(parts.tm_sec), 2)].map(padded).joined(separator: ":")
        return date + "T" + day + "." + padded(now.nanoseconds, 9) + "Z"
    }
}
