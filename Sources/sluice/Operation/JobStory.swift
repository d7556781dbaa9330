import Contract
import JobQueue
import Observability
import RedisClient

/// Everything that Redis still knows of a job.
struct JobStory: Sendable {
    let id: JobID
    let record: JobRecord?
    let events: [LoggedEvent]
    /// The durable wish that it ends.
    let interrupt: Interrupt?

    /// Nil when nothing is known.
    static func read(_ id: JobID, from deployment: Deployment) async throws(RedisError) -> JobStory? {
        guard id.partition(of: deployment.keys.partitions) < deployment.keys.partitions else { return nil }
        let record = try await deployment.queue.record(id)
        let events = try await deployment.queue.log(id, after: nil)
        let wish = try await deployment.redis.send("GET", .string(deployment.keys.interrupt(id))).string
        let story = JobStory(id: id, record: record, events: events, interrupt: wish.flatMap { Interrupt(parsing: $0.utf8) })
        return record == nil && events.isEmpty && story.interrupt == nil ? nil : story
    }

    static func json(id: String, record: JobRecord) -> JSON {
        var members = JSONObject()
        members["id"] = .string(id)
        for (name, value) in record.fields.sorted(by: { $0.key < $1.key }) {
            if name == "usage", let usage = try? JSON(parsing: value) {
                members[name] = usage
            } else if name.hasSuffix("_ms") || name == "attempt" || name == "crashes", let number = Int(value) {
                members[name] = .integer(number)
            } else {
                members[name] = .string(value)
            }
        }
        return .object(members)
    }

    var json: JSON {
        var members = record.flatMap { Self.json(id: id.rawValue, record: $0).object } ?? JSONObject()
        members["id"] = .string(id.rawValue)
        if let interrupt { members["interrupt"] = ["reason": .string(interrupt.reason)] }
        members["events"] = .array(
            steps.map { step in
                [
                    "first": .string(step.first.description), "last": .string(step.last.description), "type": .string(step.type),
                    "count": .integer(step.count), "bytes": .integer(step.bytes), "detail": .string(step.detail),
                ]
            })
        return .object(members)
    }

    /// Events of one type that follow one another are one step.
    struct Step: Sendable, Equatable {
        var first: EventID
        var last: EventID
        var type: String
        var count = 1
        /// Of text, reasoning or audio.
        var bytes = 0
        var detail = ""
    }

    var steps: [Step] {
        var steps: [Step] = []
        for logged in events {
            var step = Step(first: logged.id, last: logged.id, type: logged.event.type)
            switch logged.event {
            case .text(let text), .reasoning(let text): step.bytes = text.utf8.count
            case .audio(let audio): step.bytes = audio.data.utf8.count / 4 * 3
            case .started(let worker, _): step.detail = "by \(worker)"
            case .resumed(let offset): step.detail = "from byte \(offset)"
            case .restarted: break
            case .upstream(let name, let model): step.detail = "\(name), model \(model)"
            case .toolCall(let call): step.detail = call.name
            case .finished(let reason, let usage): step.detail = "\(reason.rawValue), \(Self.text(usage))"
            case .interrupted(let interruption):
                step.detail = "\(interruption.reason) while \(interruption.phase.rawValue), \(Self.text(interruption.usage))"
                if let latency = interruption.latencyMicroseconds { step.detail += ", upstream closed \(latency) µs after the signal" }
            case .failed(let failure, let usage): step.detail = "\(failure.code.rawValue): \(failure.message), \(Self.text(usage))"
            }
            if let previous = steps.last, previous.type == step.type, step.detail.isEmpty, previous.detail.isEmpty {
                steps[steps.count - 1].last = step.last
                steps[steps.count - 1].count += 1
                steps[steps.count - 1].bytes += step.bytes
            } else {
                steps.append(step)
            }
        }
        return steps
    }

    private static func text(_ usage: Usage) -> String {
        "\(usage.promptTokens) + \(usage.completionTokens) tokens\(usage.estimated ? " (estimated)" : "")"
    }

    var text: String {
        var out = "\(id)  \(record?.fields["state"] ?? "without a record")\n\n"
        var facts = TextTable(header: [])
        for name in [
            "model", "class", "owner", "session", "gateway", "worker", "upstream", "attempt", "crashes", "retry_of", "code", "reason",
        ] {
            if let value = record?.fields[name] { facts.add(["  " + name.replacing("_", with: " "), Terminal.printable(value)]) }
        }
        if let usage = record?.usage { facts.add(["  usage", Self.text(usage)]) }
        if let interrupt { facts.add(["  interrupt", "asked for, " + Terminal.printable(interrupt.reason)]) }
        out += facts.text.drop { $0 == "\n" } + "\n"
        out += times + "\n"
        var log = TextTable(header: ["  EVENT", "TYPE", "WHAT"])
        for step in steps {
            var what = step.detail
            if step.count > 1 || step.bytes > 0 { what = "\(step.count) event\(step.count == 1 ? "" : "s"), \(step.bytes) bytes" }
            log.add(["  \(step.first)" + (step.count > 1 ? " … \(step.last)" : ""), step.type, Terminal.printable(what)])
        }
        return out + (steps.isEmpty ? "  no events\n" : log.text)
    }

    /// The moments in the record, each with the time since the one before.
    private var times: String {
        var table = TextTable(header: [])
        var previous: Int64?
        for (field, name) in [
            ("submitted_ms", "submitted"), ("claimed_ms", "claimed"), ("first_token_ms", "first token"), ("finished_ms", "ended"),
        ] {
            guard let moment = record?.fields[field].flatMap({ Int64($0) }) else { continue }
            let since = previous.map { "+" + DeploymentStatus.span(max(0, moment - $0)) } ?? ""
            table.add(["  " + name, Timestamp(milliseconds: moment).description, since])
            previous = moment
        }
        return String(table.text.drop { $0 == "\n" })
    }
}
