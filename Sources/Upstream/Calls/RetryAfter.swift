/// Parses the `Retry-After` header (RFC 9110, section 10.2.3): a number of seconds or an HTTP date.
enum RetryAfter {
    private static let maximumSeconds = 86_400.0

    /// Parses a header value into a delay of 0 s to 1 day. Returns nil if the value is neither a number nor an HTTP date.
    static func parse(_ text: String, secondsSinceEpoch now: Int) -> Duration? {
        if let seconds = Double(text), seconds.isFinite { return .seconds(min(max(0, seconds), maximumSeconds)) }
        guard let date = httpDate(text) else { return nil }
        return .seconds(min(max(0, Double(date - now)), maximumSeconds))
    }

    /// Parses an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT` into seconds since 1970. It is the only form that senders may generate
    /// (RFC 9110, section 5.6.7).
    static func httpDate(_ text: String) -> Int? {
        let words = text.split(separator: " ")
        guard words.count == 6, words[5] == "GMT", let day = Int(words[1]), let year = Int(words[3]) else { return nil }
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard let month = months.firstIndex(of: String(words[2])), (1...31).contains(day), (1970...9999).contains(year) else { return nil }
        let clock = words[4].split(separator: ":").compactMap { Int($0) }
        guard clock.count == 3, (0..<24).contains(clock[0]), (0..<60).contains(clock[1]), (0...60).contains(clock[2]) else { return nil }
        return days(year: year, month: month + 1, day: day) * 86_400 + clock[0] * 3_600 + clock[1] * 60 + clock[2]
    }

    /// Days since 1970-01-01 in the Gregorian calendar. Years start in March here, so the leap day is the last day of a year.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        let shifted = month > 2 ? year : year - 1
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + dayOfYear - 719_468
    }
}
