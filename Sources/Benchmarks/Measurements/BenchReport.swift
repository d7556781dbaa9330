import Histogram
import JSONCodec
import OperatorTools

/// A histogram of durations with three significant digits, from 1 ns to 1 h.
struct Times: Sendable {
    private var histogram = Histogram<UInt64>(highestTrackableValue: 3_600_000_000_000, numberOfSignificantValueDigits: .three)

    init() {}
    init(_ histogram: Histogram<UInt64>) { self.histogram = histogram }

    mutating func add(_ nanoseconds: UInt64) { histogram.record(max(1, nanoseconds)) }

    var count: Int { Int(histogram.totalCount) }
    /// A percentile in microseconds; 0 when there are no values.
    func percentile(_ percent: Double) -> Double { count == 0 ? 0 : Double(histogram.valueAtPercentile(percent)) / 1_000 }
    /// Microseconds; 0 when there are no values.
    var maximum: Double { count == 0 ? 0 : Double(histogram.max) / 1_000 }
}

/// The result of a measurement, as a table or as JSON with the same values.
package struct BenchReport: Sendable {
    let measurement: String
    private var settings = JSONObject()
    private var times: [(key: String, title: String, times: Times)] = []
    private var figures: [(key: String, title: String, value: Double, unit: String)] = []

    package init(_ measurement: String) { self.measurement = measurement }

    /// Sets a parameter of the measurement.
    package mutating func set(_ name: String, _ value: JSON) { settings[name] = value }
    /// Adds a histogram unless it is empty.
    mutating func add(_ key: String, _ title: String, _ times: Times) {
        if times.count > 0 { self.times.append((key, title, times)) }
    }
    /// Adds a number.
    mutating func add(_ key: String, _ title: String, _ value: Double, _ unit: String) { figures.append((key, title, value, unit)) }

    func figure(_ key: String) -> Double? { figures.first { $0.key == key }?.value }

    package func print(asJSON: Bool) {
        if asJSON { StandardOutput.writeLine(json) } else { StandardOutput.write(text) }
    }

    var json: JSON {
        var members = JSONObject()
        members["measurement"] = .string(measurement)
        members["settings"] = .object(settings)
        for (key, _, value, _) in figures { members[key] = .number(Self.plain(value)) }
        for (key, _, times) in times {
            members[key] = [
                "count": .integer(times.count), "p50_us": .number(Self.plain(times.percentile(50))),
                "p90_us": .number(Self.plain(times.percentile(90))), "p99_us": .number(Self.plain(times.percentile(99))),
                "max_us": .number(Self.plain(times.maximum)),
            ]
        }
        return .object(members)
    }

    var text: String {
        let facts = settings.members.map { "\($0.name) \($0.value.string ?? $0.value.text)" }.joined(separator: ", ")
        var out = "\(measurement): \(facts)\n\n"
        if !figures.isEmpty {
            var table = TextTable(header: ["FIGURE", "VALUE"])
            for (_, title, value, unit) in figures { table.add([title, "\(Self.rounded(value)) \(unit)"]) }
            out += table.text + "\n"
        }
        if !times.isEmpty {
            var table = TextTable(header: ["TIME", "COUNT", "P50", "P90", "P99", "MAX"])
            for (_, title, times) in times {
                table.add([
                    title, String(times.count), Self.span(times.percentile(50)), Self.span(times.percentile(90)),
                    Self.span(times.percentile(99)),
                    Self.span(times.maximum),
                ])
            }
            out += table.text
        }
        return out
    }

    /// A number with at most three decimals, for JSON.
    private static func plain(_ value: Double) -> String {
        guard value.isFinite else { return "0" }
        let rounded = (value * 1_000).rounded() / 1_000
        return rounded == rounded.rounded() && abs(rounded) < 1e15 ? String(Int(rounded)) : rounded.description
    }

    /// A number with about three digits, which is the precision of such a measurement.
    static func rounded(_ value: Double) -> String {
        guard value.isFinite else { return "-" }
        let digits: Double = abs(value) >= 100 ? 1 : abs(value) >= 10 ? 10 : 100
        return plain((value * digits).rounded() / digits)
    }

    private static func span(_ microseconds: Double) -> String {
        if microseconds < 1_000 { return "\(rounded(microseconds)) µs" }
        return microseconds < 1_000_000 ? "\(rounded(microseconds / 1_000)) ms" : "\(rounded(microseconds / 1_000_000)) s"
    }
}

/// Progress messages on standard error.
package enum Progress {
    package static func say(_ text: String) { StandardError.write("bench: \(text)\n") }
}
