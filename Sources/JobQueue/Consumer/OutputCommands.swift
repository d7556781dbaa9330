import Contract
import JSONCodec
import RedisClient

/// Builds the commands that write a job's output and its terminal event. A value type, usable on any thread.
///
/// Output needs no script: XADD with an explicit id fails once a newer attempt has written to the log, which fences stale workers.
package struct OutputCommands: Sendable {
    package let recordKey: String
    package let logKey: String
    package let outChannel: String
    package let interruptKey: String
    package let queueKey: String
    package let deadKey: String
    private let addHead: CommandHead
    private let publishHead: CommandHead

    package init(_ id: JobID, entry: QueueEntry, keys: Keys) {
        recordKey = keys.record(id)
        logKey = keys.log(id)
        outChannel = keys.out(id)
        interruptKey = keys.interrupt(id)
        queueKey = keys.queue(entry.priority, partition: entry.partition)
        deadKey = keys.dead(partition: entry.partition)
        // The claim created the log. After FLUSHALL it must not be recreated without its first events, its record and its expiry.
        addHead = CommandHead("XADD", logKey, "NOMKSTREAM", further: 3)
        publishHead = CommandHead("PUBLISH", outChannel, further: 1)
    }

    /// Appends one XADD per event and one PUBLISH for all of them.
    /// - Parameter events: ids and JSON of the events.
    /// - Returns: the number of commands, and so of replies: the XADDs (null when the log is missing), then the PUBLISH.
    package func append(_ events: [(id: EventID, json: [UInt8])], to pipeline: inout RedisPipeline) -> Int {
        // The brackets, and a comma after each event but the last.
        var size = 1
        for event in events {
            pipeline.begin(addHead)
            pipeline.argument(bytes: event.id.length) { event.id.append(to: &$0) }
            pipeline.argument("e")
            pipeline.argument(event.json)
            size += event.json.count + 1
        }
        if pipeline.isSharded {
            pipeline.begin(arguments: 3)
            pipeline.argument(pipeline.publishCommand)
            pipeline.argument(outChannel)
        } else {
            pipeline.begin(publishHead)
        }
        pipeline.argument(bytes: max(2, size)) { message in
            message.append(UInt8(ascii: "["))
            for (index, event) in events.enumerated() {
                if index > 0 { message.append(UInt8(ascii: ",")) }
                message.append(contentsOf: event.json)
            }
            message.append(UInt8(ascii: "]"))
        }
        return events.count + 1
    }

    /// The arguments of `finish.lua` that depend on how the job ended.
    package struct Ending: Sendable {
        package var event: LoggedEvent
        /// The id of the event before it in the log; the script checks that no event is missing. Nil if some may be.
        package var previous: EventID?
        package var progress: JobProgress
        /// The job JSON to keep as a dead letter; nil for none.
        package var deadLetter: [UInt8]?
        /// Whether Redis may hold audio of the user's message, which is deleted with the end.
        package var hasAudio = true

        package init(event: LoggedEvent, previous: EventID?, progress: JobProgress) {
            self.event = event
            self.previous = previous
            self.progress = progress
        }
    }

    /// Appends the script call that ends a job: one command, one reply as described in `finish.lua`.
    /// - Parameter loaded: whether the server has the script; false after a NOSCRIPT reply, which sends the source by EVAL.
    package func append(_ ending: Ending, entry: QueueEntry, settings: QueueSettings, loaded: Bool, to pipeline: inout RedisPipeline) {
        let progress = ending.progress
        var code = ""
        var reason = ""
        var message = ""
        var state = JobState.finished
        switch ending.event.event {
        case .finished(let finishReason, _, _): reason = finishReason.rawValue
        case .interrupted(let interruption): (state, reason) = (.interrupted, interruption.reason)
        case .failed(let failure, _): (state, code, message) = (.failed, failure.code.rawValue, failure.message)
        default: break
        }
        pipeline.append(
            Scripts.finish, keys: [recordKey, logKey, outChannel, interruptKey, queueKey, deadKey],
            arguments: [
                .integer(ending.event.id.attempt), .string(ending.event.id.description), .bytes(ending.event.json),
                .string(ending.previous?.description ?? ""), .string(entry.id), .integer(settings.retentionSeconds),
                .string(state.rawValue),
                .string(code), .string(reason), .string((progress.usage ?? .none).json.text), .string(progress.upstream ?? ""),
                .string(JobProgress.text(progress.firstTokenMilliseconds)), .string(Keys.group), .integer(settings.deadMaximum),
                .bytes(ending.deadLetter ?? []), .string(message), .string(JobProgress.text(progress.dialledMilliseconds)),
                .integer(settings.deadMaximumBytes), .integer(ending.hasAudio ? 1 : 0),
            ], isLoaded: loaded)
    }
}
