import Contract
import RedisClient

/// A part of a job's log that is bounded in bytes.
package struct LogPage: Sendable {
    /// In order; entries that are no events are left out.
    package let events: [LoggedEvent]
    /// The id of the page's last entry as Redis spells it, from after which the next page begins; nil: there was none.
    package let end: String?
    /// Whether the log ended with this page when it was read.
    package let isLast: Bool
}

extension JobQueue {
    /// The job's next events: at least one entry, if there is any, and as many more as fit into `size`.
    /// - Parameters:
    ///   - after: the id of an entry, as `LogPage.end` or an event's id; nil: from the beginning.
    ///   - size: bytes, as they are in Redis.
    package func logPage(_ id: JobID, after: String?, size: Int) async throws(RedisError) -> LogPage {
        let answer = try await redis.run(
            Scripts.logPage, keys: [keys.log(id)], arguments: [.string(after.map { "(" + $0 } ?? "-"), .integer(size)])
        guard let parts = answer.array, parts.count == 2, let entries = parts[0].array else {
            throw RedisError(.protocolViolation, "the script that reads a page of a log answered with something else")
        }
        var events: [LoggedEvent] = []
        var end: String?
        for entry in entries {
            guard let pair = entry.array, pair.count == 2, let entryID = pair[0].string else { continue }
            end = entryID
            if let fields = pair[1].array, fields.count >= 2, let json = fields[1].bytes,
                let event = try? LoggedEvent(parsing: json.array), event.id == EventID(entryID)
            {
                events.append(event)
            }
        }
        return LogPage(events: events, end: end, isLast: parts[1].integer == 1)
    }
}
