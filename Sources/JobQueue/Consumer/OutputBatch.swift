import Contract
import RedisClient

/// The output of several jobs, sent in one round trip. No I/O before `JobConsumer.write`.
package struct OutputBatch: Sendable {
    /// Redis' reply to a batch, to be read by `OutputReplies`.
    package typealias Reply = Result<[RESPValue], QueueError>

    /// One job's part of a batch.
    package struct Part: Sendable, Equatable {
        /// Number of commands, and so of replies, that write events.
        fileprivate var events = 0
        fileprivate var hasEnding = false

        package init() {}

        package var isEmpty: Bool { events == 0 && !hasEnding }
        /// Number of commands, and so of replies.
        package var commands: Int { hasEnding ? events + 1 : events }
    }

    private(set) var pipeline: RedisPipeline

    /// Bytes of the commands that write one token.
    private static let usualSize = 384

    /// - Parameters:
    ///   - isSharded: whether the output channels are sharded, as in a cluster; see `JobConsumer.isCluster`.
    ///   - jobs: expected number of jobs with output in the batch.
    package init(isSharded: Bool = false, jobs: Int = 1) {
        pipeline = RedisPipeline(isSharded: isSharded)
        pipeline.reserve(min(jobs, 1_000) * Self.usualSize)
    }

    /// Appends the output of a job: its events, and then its terminal event, if any.
    /// - Parameters:
    ///   - events: ids and JSON, in order; may be empty.
    ///   - ending: the terminal event; nil while the job runs.
    ///   - sendsScript: whether the finish script is sent in full; needed after `OutputReceipt.Ending.scriptMissing`.
    ///   - job: the commands of the job.
    ///   - entry: the job's queue entry.
    /// - Returns: the part, to read the reply with; empty without events and terminal event.
    package mutating func append(
        _ events: [(id: EventID, json: [UInt8])], ending: OutputCommands.Ending?, sendsScript: Bool, to job: OutputCommands,
        entry: QueueEntry, settings: QueueSettings
    ) -> Part {
        var part = Part()
        if !events.isEmpty { part.events = job.append(events, to: &pipeline) }
        if let ending {
            job.append(ending, entry: entry, settings: settings, loaded: !sendsScript, to: &pipeline)
            part.hasEnding = true
        }
        return part
    }
}

/// What Redis replied to one job's part of a batch.
package struct OutputReceipt: Sendable, Equatable {
    /// The result of writing events.
    package enum Events: Sendable, Equatable {
        /// The part contained none.
        case none
        /// All are in the log.
        case written
        /// Not all were written: a newer attempt has written to the log, the log no longer exists, or Redis rejects writes (out of memory,
        /// read-only). The log's newest id says which.
        case refused
    }

    /// The result of the terminal event.
    package enum Ending: Sendable, Equatable {
        /// The part contained none.
        case none
        /// The job has ended with it.
        case ended
        /// Another attempt owns the job, it ended elsewhere, or Redis no longer has it.
        case endedElsewhere
        /// Nothing was written: Redis does not have the finish script, which must be sent in full.
        case scriptMissing
        /// Not written. The log's newest id says why.
        case refused
    }

    package var events: Events
    package var ending: Ending
    /// Whether something was refused because the log has, or has had, an event with the same or a higher id.
    package var hasHigherID = false
    /// The first replies, for the log; empty unless something was refused.
    package var replies = ""

    package init(events: Events = .none, ending: Ending = .none) {
        self.events = events
        self.ending = ending
    }
}

/// Reads the replies to a batch, part by part in the order in which the parts were appended.
package struct OutputReplies: Equatable {
    private let replies: [RESPValue]
    /// Index of the first reply of the next part.
    private var position = 0

    /// - Returns: nil when the reply was lost: it is unknown whether the batch was written.
    package init?(_ reply: OutputBatch.Reply) {
        guard case .success(let replies) = reply else { return nil }
        self.replies = replies
    }

    /// The receipt of the next part.
    package mutating func next(_ part: OutputBatch.Part) -> OutputReceipt {
        let start = position
        position = min(start + part.commands, replies.count)
        var receipt = OutputReceipt()
        if part.events > 0 {
            receipt.events = .written
            // The last reply to events belongs to PUBLISH.
            for index in start..<min(start + part.events - 1, position) where replies[index].isRefusal { receipt.events = .refused }
        }
        if part.hasEnding, position > start { receipt.ending = Self.ending(replies[position - 1]) }
        if receipt.events == .refused || receipt.ending == .refused {
            receipt.hasHigherID = replies[start..<position].contains(where: \.saysHigherID)
            receipt.replies = "\(replies[start..<position].prefix(4))"
        }
        return receipt
    }

    /// The meaning of a reply of the finish script.
    private static func ending(_ reply: RESPValue) -> OutputReceipt.Ending {
        switch reply {
        case .integer(1): .ended
        case .integer(0): .endedElsewhere
        case _ where reply.isScriptMissing: .scriptMissing
        case .error, .integer: .refused
        default: .none
        }
    }
}

extension RESPValue {
    /// Whether the reply is an error, or the null of an XADD to a missing log.
    fileprivate var isRefusal: Bool { if case .error = self { true } else { isNull } }

    /// Whether the reply is the error of an XADD to a log that has, or has had, the same or a higher id.
    fileprivate var saysHigherID: Bool { errorText.map { $0.contains("equal or smaller") || $0.contains("exhausted") } ?? false }
}

extension JobConsumer {
    /// Sends a batch without a task. `completion` runs on the event loop, exactly once. A batch without a reply may be written again as it
    /// is: explicit ids and the finish script's checks make the repetition harmless.
    /// - Parameter connection: the number of the connection on which the jobs were claimed or renewed. Nothing is written on another one, where
    ///   Redis may hold older data.
    package func write(
        _ batch: OutputBatch, onConnection connection: Int, completion: @escaping @Sendable (OutputBatch.Reply) -> Void
    ) {
        redis.send(batch.pipeline, onConnection: connection, completion: completion)
    }

    /// The events that earlier attempts of a job have written, in order.
    package func log(of id: JobID) async throws(QueueError) -> [LoggedEvent] {
        try await JobProducer(redis: redis, logs: logs, settings: settings).log(id, after: nil)
    }
}
