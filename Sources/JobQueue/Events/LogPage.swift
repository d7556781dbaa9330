import Contract
import RedisClient

/// A section of a job's event log, bounded in bytes.
package struct LogPage: Sendable {
    /// The events in order; entries that are not valid events are skipped.
    package let events: [LoggedEvent]
    /// The id of the page's last entry as Redis returned it; the next page starts after it. Nil for an empty page.
    package let end: String?
    /// Whether the log ended with this page when it was read.
    package let isLast: Bool
}

extension JobProducer {
    /// Reads a page like `logPage(_:after:size:)`, in the owner's turn: pages that many streams of one owner read at the same time would
    /// delay other owners.
    package func logPage(
        _ id: JobID, after: String?, size: Int, inTurnOf owner: String
    ) async throws(RedisError) -> LogPage {
        await pageTurns.begin(size, of: owner)
        defer { pageTurns.end(size, of: owner) }
        return try await logPage(id, after: after, size: size)
    }

    /// Reads the next events of a job: at least one entry, if there is any, and as many more as fit into `size`.
    /// - Parameters:
    ///   - after: the entry id after which to start, `LogPage.end` or an event's id; nil to start from the beginning.
    ///   - size: bytes of entries as stored in Redis.
    package func logPage(_ id: JobID, after: String?, size: Int) async throws(RedisError) -> LogPage {
        let answer = try await logs.run(
            Scripts.logPage, keys: [keys.log(id)], arguments: [.string(after.map { "(" + $0 } ?? "-"), .integer(size)])
        guard let parts = answer.array, parts.count == 2, let entries = parts[0].array else {
            throw RedisError(.protocolViolation, "unexpected reply from the log_page script")
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

    /// Reads a page like `logPage(_:after:size:)` of a job whose end a reader has seen.
    /// - Throws: also `.unavailable` where the log ends before the job's end: a fail-over has lost it. The job's worker writes it again, or another
    ///   worker continues the job.
    package func endedLogPage(_ id: JobID, after: String?, size: Int) async throws(QueueError) -> LogPage {
        let page = try await logPage(id, after: after, size: size)
        guard page.end == nil, let record = try await record(id) else { return page }
        // It may have ended after the page was read.
        if record.state?.isTerminal == true { return try await logPage(id, after: after, size: size) }
        throw QueueError(.unavailable, "the log of the job lacks its end")
    }
}
