import Contract
import RedisClient

/// What operators ask of workers.
extension JobConsumer {
    /// Operator commands that apply to a worker.
    package struct OperatorRequests: Sendable, Equatable {
        package var isDrainRequested = false
        /// Nil when the key is not a set; the caller keeps the previous value.
        package var pausedClasses: Set<JobClass>?
    }

    /// Reads the operator commands for this worker.
    ///
    /// A drain ends the worker, so a mismatched reply must not cause one: ECHO commands before and after verify that replies match their
    /// commands, and EXISTS and GET must agree.
    package func operatorRequests() async throws(QueueError) -> OperatorRequests {
        let drain = keys.drain(worker)
        let marks = ["\(UInt64.random(in: .min ... .max))", "\(UInt64.random(in: .min ... .max))"]
        var pipeline = RedisPipeline()
        pipeline.append("ECHO", .string(marks[0]))
        pipeline.append("EXISTS", .string(drain))
        pipeline.append("GET", .string(drain))
        pipeline.append("SMEMBERS", .string(keys.paused))
        pipeline.append("ECHO", .string(marks[1]))
        let replies = try await redis.send(pipeline)
        guard replies.count == 5, replies[0].bulkText == marks[0], replies[4].bulkText == marks[1] else {
            throw redis.misfit(.array(replies), to: "ECHO")
        }
        return OperatorRequests(
            isDrainRequested: replies[1] == .integer(1) && replies[2].bulkText != nil,
            pausedClasses: replies[3].array.map { Set($0.compactMap { $0.string.flatMap(JobClass.init) }) })
    }
}

extension RESPValue {
    /// The text of a bulk string; nil for other kinds of replies.
    fileprivate var bulkText: String? { if case .bulk = self { string } else { nil } }
}
