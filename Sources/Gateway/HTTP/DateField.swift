import Glibc
import HTTPTypes
import NIOConcurrencyHelpers
import Support

/// The Date field of responses (RFC 9110, 6.6.1), formatted once per second. Thread-safe.
final class DateField: Sendable {
    private let last = NIOLockedValueBox<(second: Int, text: String)>((-1, ""))

    var value: String {
        let now = WallClock.seconds
        return last.withLockedValue { last in
            if last.second != now { last = (now, Self.text(now)) }
            return last.text
        }
    }

    /// The time as an IMF-fixdate (RFC 9110, 5.6.7), independent of the locale.
    /// - Parameter seconds: seconds since 1970.
    static func text(_ seconds: Int) -> String {
        var time = time_t(seconds)
        var parts = tm()
        gmtime_r(&time, &parts)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func twoDigits(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map(twoDigits).joined(separator: ":")
        return
            "\(days[Int(parts.tm_wday)]), \(twoDigits(parts.tm_mday)) \(months[Int(parts.tm_mon)]) \(1900 + Int(parts.tm_year)) \(clock) GMT"
    }
}
