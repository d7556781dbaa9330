import Contract
import JSONCodec
import RedisClient

/// The commands that carry a job's output, built into a pipeline on whatever thread the output comes up: the hot path has no script,
/// explicit ids fence it.
package struct OutputCommands: Sendable {
    package let recordKey: String
    package let logKey: String
    package let outChannel: String
    package let interruptKey: String
    package let queueKey: String
    package let deadKey: String

    package init(_ id: JobID, entry: QueueEntry, keys: Keys) {
        recordKey = keys.record(id)
        logKey = keys.log(id)
        outChannel = keys.out(id)
        interruptKey = keys.interrupt(id)
        queueKey = keys.queue(entry.priority, partition: entry.partition)
        deadKey = keys.dead(partition: entry.partition)
    }

    /// One XADD an event and one PUBLISH for all; `events` are the events' JSON.
    /// - Returns: how many commands, and so replies: the XADDs (null when the log is gone), then the PUBLISH.
    package func append(_ events: [(id: EventID, json: [UInt8])], to pipeline: inout RedisPipeline) -> Int {
        for event in events {
            pipeline.begin(arguments: 6)
            pipeline.argument("XADD")
            pipeline.argument(logKey)
            // The claim made the log. One that is gone (FLUSHALL) must not come back without its beginning, its record and its expiry.
            pipeline.argument("NOMKSTREAM")
            pipeline.argument(event.id.description)
            pipeline.argument("e")
            pipeline.argument(event.json)
        }
        var message: [UInt8] = []
        message.reserveCapacity(events.reduce(2) { $0 + $1.json.count + 1 })
        message.append(UInt8(ascii: "["))
        for (index, event) in events.enumerated() {
            if index > 0 { message.append(UInt8(ascii: ",")) }
            message.append(contentsOf: event.json)
        }
        message.append(UInt8(ascii: "]"))
        pipeline.begin(arguments: 3)
        pipeline.argument("PUBLISH")
        pipeline.argument(outChannel)
        pipeline.argument(message)
        return events.count + 1
    }

    /// What `finish.lua` needs beside the keys.
    package struct Ending: Sendable {
        package var event: LoggedEvent
        /// The event before it in the log.
        package var previous: EventID
        package var progress: JobProgress
        /// For the dead letters; nil: none.
        package var deadLetter: [UInt8]?

        package init(event: LoggedEvent, previous: EventID, progress: JobProgress) {
            self.event = event
            self.previous = previous
            self.progress = progress
        }
    }

    /// - Parameter loaded: false after a NOSCRIPT: the script goes along whole.
    package func append(_ ending: Ending, entry: QueueEntry, settings: QueueSettings, loaded: Bool, to pipeline: inout RedisPipeline) {
        let script = Scripts.finish
        let progress = ending.progress
        var code = ""
        var reason = ""
        var message = ""
        var state = JobState.finished
        switch ending.event.event {
        case .finished(let why, _): reason = why.rawValue
        case .interrupted(let interruption): (state, reason) = (.interrupted, interruption.reason)
        case .failed(let failure, _): (state, code, message) = (.failed, failure.code.rawValue, failure.message)
        default: break
        }
        pipeline.append([
            loaded ? "EVALSHA" : "EVAL", .string(loaded ? script.digest : script.source), 6, .string(recordKey), .string(logKey),
            .string(outChannel),
            .string(interruptKey), .string(queueKey), .string(deadKey), .integer(ending.event.id.attempt),
            .string(ending.event.id.description),
            .bytes(ending.event.json), .string(ending.previous.description), .string(entry.id), .integer(settings.retentionSeconds),
            .string(state.rawValue), .string(code), .string(reason), .string((progress.usage ?? .none).json.text),
            .string(progress.upstream ?? ""),
            .string(JobProgress.text(progress.firstTokenMilliseconds)), .string(Keys.group), .integer(settings.deadMaximum),
            .bytes(ending.deadLetter ?? []), .string(message), .string(JobProgress.text(progress.dialledMilliseconds)),
            .integer(settings.deadMaximumBytes),
        ])
    }
}
