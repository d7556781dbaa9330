import Contract
import Support

/// Formats durations, rates and counts for people.
enum Quantity {
    /// A duration with two units at most: `850ms`, `12.3s`, `4m10s`, `3h05m`, `2d4h`.
    static func span(milliseconds: Int) -> String {
        let seconds = milliseconds / 1_000
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        if milliseconds < 1_000 { return "\(milliseconds)ms" }
        if seconds < 60 { return "\(seconds).\(milliseconds % 1_000 / 100)s" }
        if seconds < 3_600 { return "\(seconds / 60)m\(two(seconds % 60))s" }
        if seconds < 86_400 { return "\(seconds / 3_600)h\(two(seconds / 60 % 60))m" }
        return "\(seconds / 86_400)d\(seconds / 3_600 % 24)h"
    }

    /// A duration that may be under a millisecond: `420µs`, `1.3ms`.
    static func span(microseconds: Int) -> String {
        if microseconds < 1_000 { return "\(microseconds)µs" }
        if microseconds < 10_000 { return "\(microseconds / 1_000).\(microseconds % 1_000 / 100)ms" }
        return span(milliseconds: microseconds / 1_000)
    }

    /// A rate with a tenth below ten: `0`, `0.4`, `12`, `12,340`.
    static func rate(_ value: Double) -> String {
        let tenths = Int(bounding: (value * 10).rounded())
        return tenths < 100 && tenths % 10 != 0 ? "\(tenths / 10).\(tenths % 10)" : count(Int(bounding: value.rounded()))
    }

    /// A number with thousands separators: `1,234,567`.
    static func count(_ number: Int) -> String {
        var out = ""
        let digits = Array(String(number.magnitude))
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { out.append(",") }
            out.append(digit)
        }
        return number < 0 ? "-" + out : out
    }
}
