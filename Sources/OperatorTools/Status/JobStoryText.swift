import Contract
import JobQueue
import Observability
import Support

/// A job's story as text for `sluice job show`.
extension JobStory {
    package var text: String {
        var out = Terminal.printable("\(id)  \(record?.fields["state"] ?? "without a record")") + "\n\n"
        var facts = TextTable(header: [])
        for name in [
            "model", "class", "owner", "session", "gateway", "worker", "upstream", "attempt", "crashes", "retry_of", "code", "reason",
        ] {
            if let value = record?.fields[name] { facts.add(["  " + name.replacing("_", with: " "), value]) }
        }
        if let usage = record?.usage { facts.add(["  usage", Self.text(usage)]) }
        if let interrupt { facts.add(["  interrupt", "requested, " + interrupt.reason]) }
        out += facts.text.drop { $0 == "\n" } + "\n"
        out += times + "\n"
        var log = TextTable(header: ["  EVENT", "TYPE", "WHAT"])
        for step in steps {
            var what = step.detail
            if step.count > 1 || step.bytes > 0 { what = "\(step.count) event\(step.count == 1 ? "" : "s"), \(step.bytes) bytes" }
            log.add(["  \(step.first)" + (step.count > 1 ? " … \(step.last)" : ""), step.type, what])
        }
        return out + (steps.isEmpty ? "  no events\n" : log.text)
    }

    /// The timestamps of the record, each with the time since the previous one.
    private var times: String {
        var table = TextTable(header: [])
        var previous: Int?
        for (field, name) in [
            ("submitted_ms", "submitted"), ("claimed_ms", "claimed"), ("dialled_ms", "dialled"), ("first_token_ms", "first token"),
            ("finished_ms", "ended"),
        ] {
            guard let moment = record?.count(field) else { continue }
            let since = previous.map { "+" + Quantity.span(milliseconds: max(0, moment.saturatingSubtracting($0))) } ?? ""
            table.add(["  " + name, Timestamp(milliseconds: Int64(moment)).description, since])
            previous = moment
        }
        return String(table.text.drop { $0 == "\n" })
    }
}
