/// The `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date.
enum RetryAfter {
    private static let maximumSeconds = 86_400.0

    /// Nil for what is neither. Never negative, at most a day.
    static func parse(_ text: String, secondsSinceEpoch now: Int) -> Duration? {
        if let seconds = Double(text), seconds.isFinite { return .seconds(min(max(0, seconds), maximumSeconds)) }
        guard let date = httpDate(text) else { return nil }
        return .seconds(min(max(0, Double(date - now)), maximumSeconds))
    }

    /// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that may be sent (RFC 9110, 5.6.7).
    static func httpDate(_ text: String) -> Int? {
        let words = text.split(separator: " ")
        guard words.count == 6, words[5] == "GMT", let day = Int(words[1]), let year = Int(words[3]) else { return nil }
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard let month = months.firstIndex(of: String(words[2])), (1...31).contains(day), (1970...9999).contains(year) else { return nil }
        let clock = words[4].split(separator: ":").compactMap { Int($0) }
        guard clock.count == 3, (0..<24).contains(clock[0]), (0..<60).contains(clock[1]), (0...60).contains(clock[2]) else { return nil }
        return days(year: year, month: month + 1, day: day) * 86_400 + clock[0] * 3_600 + clock[1] * 60 + clock[2]
    }

    /// Days from 1 January 1970 in the Gregorian calendar: years are counted from March, so that the leap day comes last.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        let shifted = month > 2 ? year : year - 1
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + dayOfYear - 719_468
    }
}
