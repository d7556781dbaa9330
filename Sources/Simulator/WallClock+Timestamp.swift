import Support

extension WallClock {
    /// The current time in UTC with nanoseconds, in the form of RFC 3339.
    static var timestamp: String {
        let now = secondsAndNanoseconds
        let time = SystemCalls.calendarTime(secondsSince1970: now.seconds)
        func padded(_ number: Int, _ width: Int) -> String {
            let digits = String(number)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = [(time.year, 4), (time.month, 2), (time.day, 2)].map(padded).joined(separator: "-")
        let day = [(time.hour, 2), (time.minute, 2), (time.second, 2)].map(padded).joined(separator: ":")
        return date + "T" + day + "." + padded(now.nanoseconds, 9) + "Z"
    }
}
