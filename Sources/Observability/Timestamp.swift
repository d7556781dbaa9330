import Support

/// A time in UTC with milliseconds, formatted as in RFC 3339: `2026-11-22T14:00:00.123Z`.
package struct Timestamp: Sendable, CustomStringConvertible {
    /// The times with a year of four digits: 0000-01-01 to 9999-12-31.
    private static let range: ClosedRange<Int64> = -62_167_219_200_000...253_402_300_799_999

    /// Since 1970-01-01 UTC.
    package let milliseconds: Int64

    /// - Parameter milliseconds: since 1970-01-01 UTC; clamped to the years 0 to 9999.
    package init(milliseconds: Int64) { self.milliseconds = min(max(milliseconds, Self.range.lowerBound), Self.range.upperBound) }

    package static var now: Timestamp { Timestamp(milliseconds: Int64(WallClock.milliseconds)) }

    package var description: String { String(decoding: bytes, as: UTF8.self) }

    var bytes: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(24)
        append(to: &out)
        return out
    }

    /// Appends the formatted time without allocating a `String`.
    func append(to out: inout [UInt8]) {
        let (quotient, remainder) = milliseconds.quotientAndRemainder(dividingBy: 1_000)
        let thousandths = remainder < 0 ? remainder + 1_000 : remainder
        let time = SystemCalls.calendarTime(secondsSince1970: Int(remainder < 0 ? quotient - 1 : quotient))
        func digits(_ value: Int, _ count: Int) {
            var divisor = count == 4 ? 1_000 : count == 3 ? 100 : 10
            while divisor > 0 {
                out.append(UInt8(ascii: "0") + UInt8(value / divisor % 10))
                divisor /= 10
            }
        }
        digits(time.year, 4)
        out.append(UInt8(ascii: "-"))
        digits(time.month, 2)
        out.append(UInt8(ascii: "-"))
        digits(time.day, 2)
        out.append(UInt8(ascii: "T"))
        digits(time.hour, 2)
        out.append(UInt8(ascii: ":"))
        digits(time.minute, 2)
        out.append(UInt8(ascii: ":"))
        digits(time.second, 2)
        out.append(UInt8(ascii: "."))
        digits(Int(thousandths), 3)
        out.append(UInt8(ascii: "Z"))
    }
}
