import Contract
import JSONCodec
import NIOCore
import RedisClient

package struct SubmitOptions: Sendable {
    /// The gateway's name, for the record.
    package var gateway = ""
    /// Jobs of the same partition and owner that are interrupted (USER_NEW_INPUT) in the same step.
    package var supersede: [JobID] = []
    /// `Idempotency-Key`, with a digest of the body it came with (no white space in it).
    package var idempotency: (key: String, digest: String)?
    /// The job ends with its gateway: it is kept among `Keys.requests` until the gateway takes it out, or another one does after the
    /// gateway's death.
    package var endsWithGateway = false
    /// The epoch in which the gateway holds the job's session, and a field of the session's record that a command sent before this one has
    /// written. Should another gateway have taken the session, or the field not be there, nothing is submitted. Nil: whoever holds it.
    package var session: (epoch: Int, field: String)?

    package init() {}
}

package enum Submission: Sendable, Equatable {
    case accepted
    /// The queue of the class holds its limit of jobs or bytes.
    case full
    /// The owner's jobs reach the owner's limit of jobs or bytes.
    case ownerFull
    /// The idempotency key was used with the same body for this job: nothing new was submitted.
    case repeated(JobID)
    /// The idempotency key was used with another body.
    case conflict
    /// The job's id has a record already: this very submission was carried out before.
    case exists
    /// Another gateway has the session.
    case sessionLost
    /// The session's record lacks the field of `SubmitOptions.session`.
    case sessionUnsaved
}

package struct InterruptAnswer: Sendable, Equatable {
    /// As found; nil: unknown (or another owner's).
    package var state: JobState?
    /// The intent was stored for a job that had not ended.
    package var stored: Bool

    package init(state: JobState?, stored: Bool) {
        self.state = state
        self.stored = stored
    }
}

/// The producer's side of the contract: submit, interrupt, look.
///
/// Every method throws `RedisError`; after `connectionLost` and `timeout` it is unknown whether Redis carried the call out. All of them may
/// be called again with the same arguments: a submission then answers `exists`, an interrupt changes nothing twice.
package struct JobQueue: Sendable {
    package let redis: RedisClient
    package let settings: QueueSettings

    package var keys: Keys { settings.keys }

    package init(redis: RedisClient, settings: QueueSettings) {
        self.redis = redis
        self.settings = settings
    }

    package func submit(_ job: Job, options: SubmitOptions) async throws(RedisError) -> Submission {
        let id = job.id
        let partition = keys.partition(of: id.rawValue)
        let record = keys.record(id)
        let owner = job.owner ?? ""
        var scriptKeys = [record] + keys.queues(partition: partition) + [keys.cancel(partition: partition)]
        scriptKeys.append(options.idempotency.map { keys.idempotency(owner: owner, key: $0.key) } ?? record)
        var arguments: [RedisArgument] = [
            .bytes(job.json.bytes), .string(job.priority.rawValue), .integer(settings.queueMaximum), .string(options.gateway),
            .string(owner),
            .string(job.session ?? ""), .string(job.model ?? ""), .string(job.retryOf ?? ""), .string(options.idempotency?.digest ?? ""),
            .string(Keys.group), .integer(settings.retentionSeconds), .string(id.rawValue), .string(InterruptReason.userNewInput),
            .integer(settings.ownerQueueMaximum), .integer(options.endsWithGateway ? 1 : 0),
            .string(options.session.map { String($0.epoch) } ?? ""), .string(options.session?.field ?? ""),
            .integer(settings.queueMaximumBytes), .integer(settings.ownerQueueMaximumBytes),
        ]
        for old in options.supersede {
            scriptKeys += [keys.record(old), keys.log(old), keys.out(old), keys.interrupt(old)]
            arguments.append(.string(Interrupt(id: old, reason: InterruptReason.userNewInput).text))
        }
        let answer = try await redis.run(Scripts.submit, keys: scriptKeys, arguments: arguments)
        switch answer.array?.first?.string {
        case "accepted": return .accepted
        case "full": return .full
        case "owner_full": return .ownerFull
        case "conflict": return .conflict
        case "exists": return .exists
        case "session_lost": return .sessionLost
        case "session_unsaved": return .sessionUnsaved
        case "repeated":
            guard let text = answer.array?.last?.string, let first = JobID(text) else { return .conflict }
            return .repeated(first)
        default: throw redis.misfit(answer, to: "the submit script")
        }
    }

    /// - Parameter owner: only a job of this owner is touched (another's is unknown); nil: any.
    package func interrupt(_ id: JobID, reason: String, owner: String?) async throws(RedisError) -> InterruptAnswer {
        try await interrupt(id, reason: reason, owner: owner, force: false)
    }

    /// Writes the durable key and publishes even if no worker has claimed the job yet and so nothing is known of it (one that was submitted
    /// by hand).
    package func forceInterrupt(_ id: JobID, reason: String) async throws(RedisError) -> InterruptAnswer {
        try await interrupt(id, reason: reason, owner: nil, force: true)
    }

    private func interrupt(_ id: JobID, reason: String, owner: String?, force: Bool) async throws(RedisError) -> InterruptAnswer {
        let interrupt = Interrupt(id: id, reason: reason)
        let partition = keys.partition(of: id.rawValue)
        let answer = try await redis.run(
            Scripts.interrupt,
            keys: [keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id), keys.cancel(partition: partition)]
                + keys.queues(partition: partition),
            arguments: [
                .string(interrupt.text), .string(interrupt.reason), .string(owner ?? ""), .string(Keys.group),
                .integer(settings.retentionSeconds),
                .integer(force ? 1 : 0),
            ])
        let state = answer.string.flatMap { JobState(rawValue: $0) }
        guard state != nil || answer.string == "unknown" else { throw redis.misfit(answer, to: "the interrupt script") }
        return InterruptAnswer(state: state, stored: state.map { !$0.isTerminal } ?? force)
    }

    /// Jobs that end with this gateway, as they were submitted and not yet taken out again.
    package func requests(of gateway: String, partition: Int, atMost count: Int) async throws(RedisError) -> [JobID] {
        let key = keys.requests(of: gateway, partition: partition)
        return try await redis.send("SRANDMEMBER", .string(key), .integer(count)).array?.compactMap { $0.string.flatMap { JobID($0) } }
            ?? []
    }

    package func forgetRequest(_ id: JobID, of gateway: String) async throws(RedisError) {
        let key = keys.requests(of: gateway, partition: keys.partition(of: id.rawValue))
        _ = try await redis.send("SREM", .string(key), .string(id.rawValue))
    }

    package func record(_ id: JobID) async throws(RedisError) -> JobRecord? {
        JobRecord(try await redis.send("HGETALL", .string(keys.record(id))))
    }

    /// The job's events in order; entries that are no events, or hold an event of another id, are left out.
    /// - Parameter after: nil: from the beginning.
    package func log(_ id: JobID, after: EventID?) async throws(RedisError) -> [LoggedEvent] {
        var events: [LoggedEvent] = []
        // The entry's id as Redis spells it: a page of entries that are no events must not be read again and again.
        var from = after?.description
        while true {
            let before = from
            let start = from.map { "(" + $0 } ?? "-"
            let page = try await redis.send("XRANGE", .string(keys.log(id)), .string(start), "+", "COUNT", .integer(Self.logPage))
            let entries = page.array ?? []
            for entry in entries {
                guard let pair = entry.array, pair.count == 2, let entryID = pair[0].string else { continue }
                from = entryID
                if let fields = pair[1].array, fields.count >= 2, let json = fields[1].bytes,
                    let event = try? LoggedEvent(parsing: json.array), event.id == EventID(entryID)
                {
                    events.append(event)
                }
            }
            if entries.count < Self.logPage || from == before { return events }
        }
    }

    /// Events a round trip: a job's whole log is bounded by `logMaximum`, one reply of it should not be.
    private static let logPage = 1_000

    /// The last id in each job's log, in one round trip; nil for a job without one.
    package func lastEvents(_ ids: [JobID]) async throws(RedisError) -> [EventID?] {
        var pipeline = RedisPipeline()
        for id in ids { pipeline.append("XREVRANGE", .string(keys.log(id)), "+", "-", "COUNT", 1) }
        return try await redis.send(pipeline).map { Self.firstID($0) }
    }

    /// Whether each job has a record.
    package func areKnown(_ ids: [JobID]) async throws(RedisError) -> [Bool] {
        var pipeline = RedisPipeline()
        for id in ids { pipeline.append("EXISTS", .string(keys.record(id))) }
        return try await redis.send(pipeline).map { $0.integer != 0 }
    }

    /// The id of the first entry in a reply of XRANGE or XREVRANGE.
    package static func firstID(_ reply: RESPValue) -> EventID? {
        reply.array?.first?.array?.first?.string.flatMap { EventID($0) }
    }
}

extension ByteBuffer {
    /// All readable bytes.
    package var array: [UInt8] { [UInt8](readableBytesView) }
}
