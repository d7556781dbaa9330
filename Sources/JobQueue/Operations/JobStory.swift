import Contract
import JSONCodec
import RedisClient

/// Everything that Redis stores about a job: record, events and interrupt key.
package struct JobStory: Sendable {
    package let id: JobID
    package let record: JobRecord?
    package let events: [LoggedEvent]
    /// The value of the interrupt key; nil without one.
    package let interrupt: Interrupt?

    package init(id: JobID, record: JobRecord?, events: [LoggedEvent], interrupt: Interrupt?) {
        self.id = id
        self.record = record
        self.events = events
        self.interrupt = interrupt
    }

    /// The record as JSON, numbers as numbers.
    package static func json(id: String, record: JobRecord) -> JSON {
        var members = JSONObject()
        members["id"] = .string(id)
        let usage = record.usage?.json
        for (name, value) in record.fields.sorted(by: { $0.key < $1.key }) where usage == nil || !JobRecord.usageDetails.contains(name) {
            if name == "usage", let json = usage ?? (try? JSON(parsing: value)) {
                members[name] = json
            } else if name.hasSuffix("_ms") || name == "attempt" || name == "crashes", let number = Int(value) {
                members[name] = .integer(number)
            } else {
                members[name] = .string(value)
            }
        }
        return .object(members)
    }

    /// The record, the interrupt's reason and the steps, as `sluice job show --json` prints them.
    package var json: JSON {
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

    /// Consecutive events of one type, summarized.
    package struct Step: Sendable, Equatable {
        package var first: EventID
        package var last: EventID
        package var type: String
        package var count = 1
        /// Bytes of text, reasoning or audio.
        package var bytes = 0
        package var detail = ""
    }

    /// The events, with consecutive events of one type merged unless they have details of their own.
    package var steps: [Step] {
        var steps: [Step] = []
        for logged in events {
            var step = Step(first: logged.id, last: logged.id, type: logged.event.type)
            switch logged.event {
            case .text(let text), .reasoning(let text), .transcript(let text): step.bytes = text.utf8.count
            case .reasoningMark: break
            case .audio(let audio): step.bytes = audio.data.utf8.count / 4 * 3
            case .started(let worker, _): step.detail = "by \(worker)"
            case .resumed(let offset): step.detail = "from byte \(offset)"
            case .restarted: break
            case .retrieved(let count): step.detail = "\(count) documents"
            case .upstream(let name, let model): step.detail = "\(name), model \(model)"
            case .toolCall(let call): step.detail = call.name
            case .finished(let reason, let usage, _): step.detail = "\(reason.rawValue), \(Self.text(usage))"
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

    package static func text(_ usage: Usage) -> String {
        "\(usage.promptTokens) + \(usage.completionTokens) tokens\(usage.estimated ? " (estimated)" : "")"
            + (usage.billing == .continues ? ", the upstream goes on billing" : "")
    }
}

extension JobProducer {
    /// Reads record, events and interrupt key of a job; nil when Redis has none of them.
    package func story(of id: JobID) async throws(RedisError) -> JobStory? {
        guard id.partition(of: keys.partitions) < keys.partitions else { return nil }
        let record = try await record(id)
        let events = try await log(id, after: nil)
        let interruptValue = try await redis.send("GET", .string(keys.interrupt(id))).string
        let story = JobStory(id: id, record: record, events: events, interrupt: interruptValue.flatMap { Interrupt(parsing: $0.utf8) })
        return record == nil && events.isEmpty && story.interrupt == nil ? nil : story
    }
}
