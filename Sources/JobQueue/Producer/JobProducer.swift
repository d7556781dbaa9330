import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support

/// Options of a submission.
package struct SubmitOptions: Sendable {
    /// The name of the submitting gateway, stored in the job's record.
    package var gateway = ""
    /// Jobs of the same partition and owner that the same script call interrupts with USER_NEW_INPUT.
    package var supersede: [JobID] = []
    /// The `Idempotency-Key` and a digest of the request's body (without white space).
    package var idempotency: (key: String, digest: String)?
    /// Whether the job ends when its gateway dies. The job is listed in `Keys.requests` until the gateway removes it, or another gateway
    /// does so after the gateway's death.
    package var endsWithGateway = false
    /// The epoch in which the gateway owns the job's session, and a field of the session's record that an earlier command has written.
    /// Nothing is submitted if another gateway owns the session or the field is missing. Nil to skip the check.
    package var session: (epoch: Int, field: String)?

    package init() {}
}

/// The result of a submission.
package enum Submission: Sendable, Equatable {
    case accepted
    /// Refused: the queue of the class has reached its limit of jobs or bytes.
    case full
    /// Refused: the owner's jobs have reached the owner's limit of jobs or bytes.
    case ownerFull
    /// Refused: the owner's tokens of this day are used up.
    case quotaExhausted
    /// The idempotency key was used with the same body for this job. Nothing new was submitted.
    case repeated(JobID)
    /// The idempotency key was used with another body.
    case conflict
    /// The job's id already has a record: an earlier call of the same submission succeeded.
    case exists
    /// Another gateway owns the session.
    case sessionLost
    /// The session's record lacks the field of `SubmitOptions.session`.
    case sessionUnsaved
}

/// The result of an interrupt.
package struct InterruptAnswer: Sendable, Equatable {
    /// The job's state before the interrupt; nil for an unknown job or one of another owner.
    package var state: JobState?
    /// Whether the interrupt key was written because the job had not ended.
    package var stored: Bool

    package init(state: JobState?, stored: Bool) {
        self.state = state
        self.stored = stored
    }
}

/// A producer's commands on the queue: submit and interrupt jobs, read their records and event logs.
///
/// Every method throws `QueueError`; after `connectionLost` and `timeout` it is unknown whether Redis executed the call. All methods are
/// safe to repeat with the same arguments: a repeated submission returns `exists`, a repeated interrupt has no further effect.
package struct JobProducer: Sendable {
    /// Bytes of submissions that one owner may have in flight. Every command of the gateway shares the connection with them.
    private static let submittedBytes = 256 << 10
    /// Bytes of log pages that one owner's event streams may read at a time.
    private static let pageBytes = 128 << 10
    /// A smaller submission does not wait for the owner's turn.
    private static let smallSubmission = 16 << 10
    /// How long a submission waits for the owner's turn.
    private static let turnTimeout = Duration.seconds(10)

    let redis: RedisClient
    /// Reads logs, so that no other command waits behind their pages.
    let logs: RedisClient
    let recentInterrupts = RecentInterrupts()
    package let settings: QueueSettings
    /// Waits for replicas after submissions and interrupts; nil for none.
    let replicas: ReplicaWait?
    /// The owners that are known to have a daily limit.
    private let quotas = TenantQuotas()
    /// Turns of the owners' larger submissions.
    package let submissionTurns = OwnerTurns(maximum: submittedBytes)
    /// Turns of the owners' reads of log pages.
    package let pageTurns = OwnerTurns(maximum: pageBytes)

    var keys: Keys { settings.keys }
    /// Number of partitions of the deployment.
    package var partitions: Int { keys.partitions }
    /// Runs tasks on the event loop of the connection, so that a reply resumes them without a change of thread.
    package var executor: any TaskExecutor { redis.executor }

    /// A random partition for a new job or session; in a cluster one whose server is reachable, if there is any.
    package func newPartition() -> Int {
        let all = 0..<keys.partitions
        return redis.isCluster ? all.filter(isReachable(partition:)).randomElement() ?? .random(in: all) : .random(in: all)
    }

    /// Whether the Redis server of a partition is reachable; see `RedisClient.isReachable`.
    package func isReachable(partition: Int) -> Bool { redis.isReachable(keys.shard(partition: partition)) }

    /// Whether the Redis server of a job is reachable; see `RedisClient.isReachable`.
    func isReachable(_ id: JobID) -> Bool { redis.isReachable(keys.shard(partition: keys.partition(of: id.rawValue))) }

    /// - Parameter logs: a connection for the reads of logs; nil: the one for commands.
    package init(redis: RedisClient, logs: RedisClient? = nil, settings: QueueSettings, replicas: ReplicaWait? = nil) {
        self.redis = redis
        self.logs = logs ?? redis
        self.replicas = replicas
        self.settings = settings
    }

    /// Submits a job in one atomic script call. Returns why it was refused, if it was. A large job waits for its owner's turn.
    /// - Throws: `.overloaded` when the owner's earlier submissions took too long; nothing was sent.
    package func submit(_ job: Job, options: SubmitOptions) async throws(RedisError) -> Submission {
        let body = job.json.bytes
        guard body.count > Self.smallSubmission else { return try await submit(job, body, options: options) }
        let owner = job.owner ?? ""
        let begun = ContinuousClock.now
        await submissionTurns.begin(body.count, of: owner)
        defer { submissionTurns.end(body.count, of: owner) }
        // Without this limit all waiting submissions would time out one after the other while Redis does not answer.
        guard ContinuousClock.now - begun < Self.turnTimeout else {
            throw RedisError(.overloaded, "earlier submissions of the same owner took too long")
        }
        return try await submit(job, body, options: options)
    }

    /// Tokens that an owner with a daily limit has used today in other partitions than the one of the job; the script adds those of its own.
    private func tokensElsewhere(of owner: String, partition: Int) async throws(RedisError) -> Int {
        guard keys.partitions > 1, quotas.contains(owner) else { return 0 }
        return try await tokens(of: owner, day: WallClock.milliseconds / 86_400_000, except: partition)
    }

    private func submit(_ job: Job, _ body: [UInt8], options: SubmitOptions) async throws(RedisError) -> Submission {
        let id = job.id
        let partition = keys.partition(of: id.rawValue)
        let record = keys.record(id)
        let owner = job.owner ?? ""
        var scriptKeys = [record] + keys.queues(partition: partition) + [keys.cancel(partition: partition)]
        scriptKeys.append(options.idempotency.map { keys.idempotency(owner: owner, key: $0.key) } ?? record)
        var arguments: [RedisArgument] = [
            .bytes(body), .string(job.priority.rawValue), .integer(settings.queueMaximum), .string(options.gateway),
            .string(owner),
            .string(job.session ?? ""), .string(job.model ?? ""), .string(job.retryOf ?? ""), .string(options.idempotency?.digest ?? ""),
            .string(Keys.group), .integer(settings.retentionSeconds), .string(id.rawValue),
            .integer(settings.ownerQueueMaximum), .integer(options.endsWithGateway ? 1 : 0),
            .string(options.session.map { String($0.epoch) } ?? ""), .string(options.session?.field ?? ""),
            .integer(settings.queueMaximumBytes), .integer(settings.ownerQueueMaximumBytes),
            .integer(try await tokensElsewhere(of: owner, partition: partition)),
        ]
        let interrupts = options.supersede.map { Interrupt(id: $0, reason: InterruptReason.userNewInput) }
        for interrupt in interrupts {
            let old = interrupt.id
            scriptKeys += [keys.record(old), keys.log(old), keys.out(old), keys.interrupt(old)]
            arguments.append(.string(interrupt.text))
        }
        let connection = connection(partition: partition)
        let answer = try await redis.run(Scripts.submit, keys: scriptKeys, arguments: arguments)
        switch answer.array?.first?.string {
        case "accepted":
            if answer.array?.last?.integer ?? 0 > 0 { quotas.insert(owner) }
            for interrupt in interrupts {
                recentInterrupts.add(.init(interrupt, owner: job.owner, isForced: false, connection: connection))
            }
            await replicas?.wait(keys.replicated(partition: partition))
            return .accepted
        case "quota":
            quotas.insert(owner)
            return .quotaExhausted
        case "full": return .full
        case "owner_full": return .ownerFull
        case "conflict": return .conflict
        case "exists":
            await replicas?.wait(keys.replicated(partition: partition))
            return .exists
        case "session_lost": return .sessionLost
        case "session_unsaved": return .sessionUnsaved
        case "repeated":
            guard let text = answer.array?.last?.string, let first = JobID(text) else { return .conflict }
            await replicas?.wait(keys.replicated(partition: partition))
            return .repeated(first)
        default: throw redis.misfit(answer, to: "the submit script")
        }
    }

    /// Stores the audio of a job's user message, before the job is submitted. It is deleted at the job's end, and expires at the job's
    /// deadline, or after 10 minutes when it has none.
    package func storeAudio(_ audio: [UInt8], of job: Job) async throws(QueueError) {
        let key = keys.audio(job.id)
        if let deadline = job.deadlineMilliseconds {
            _ = try await redis.send("SET", .string(key), .bytes(audio), "PXAT", .integer(deadline))
        } else {
            _ = try await redis.send("SET", .string(key), .bytes(audio), "EX", "600")
        }
    }

    /// Deletes the audio of a job that was refused.
    package func deleteAudio(of id: JobID) async throws(QueueError) { _ = try await redis.send("DEL", .string(keys.audio(id))) }

    /// A random sample of the jobs that end with this gateway and were not removed by `forgetRequest`.
    package func requests(of gateway: String, partition: Int, atMost count: Int) async throws(RedisError) -> [JobID] {
        let key = keys.requests(of: gateway, partition: partition)
        return try await redis.send("SRANDMEMBER", .string(key), .integer(count)).array?.compactMap { $0.string.flatMap { JobID($0) } }
            ?? []
    }

    /// Removes a job from the jobs that end with a gateway.
    package func forgetRequest(_ id: JobID, of gateway: String) async throws(RedisError) {
        let key = keys.requests(of: gateway, partition: keys.partition(of: id.rawValue))
        _ = try await redis.send("SREM", .string(key), .string(id.rawValue))
    }

    /// Whether each job has ended, or its record has expired or was lost. False when that could not be read.
    package func haveEnded(_ ids: [JobID]) async throws(QueueError) -> [Bool] {
        var pipeline = RedisPipeline()
        for id in ids { pipeline.append("HGET", .string(keys.record(id)), "state") }
        return try await redis.send(pipeline).map { reply in
            switch reply {
            case .null: true
            case .bulk: reply.string.flatMap(JobState.init)?.isTerminal ?? true
            default: false
            }
        }
    }

    /// The job's record; nil for an unknown job.
    package func record(_ id: JobID) async throws(RedisError) -> JobRecord? {
        JobRecord(try await redis.send("HGETALL", .string(keys.record(id))))
    }

    /// The job's events in order. Entries that are not valid events, or whose event has another id, are skipped.
    /// - Parameter after: the event after which to start; nil to start from the beginning.
    package func log(_ id: JobID, after: EventID?) async throws(RedisError) -> [LoggedEvent] {
        var events: [LoggedEvent] = []
        var from = after?.description
        while true {
            let page = try await logPage(id, after: from, size: Self.logPageSize)
            events += page.events
            guard !page.isLast, let end = page.end else { return events }
            from = end
        }
    }

    /// Bytes of a log that `log` reads at a time, so that neither Redis nor the connection is busy with a whole log.
    private static let logPageSize = 128 << 10

    /// The last event id in each job's log, in one round trip; nil for a job without a log.
    package func lastEvents(_ ids: [JobID]) async throws(RedisError) -> [EventID?] {
        var pipeline = RedisPipeline()
        for id in ids { pipeline.append("XREVRANGE", .string(keys.log(id)), "+", "-", "COUNT", 1) }
        return try await redis.send(pipeline).map { Self.firstID($0) }
    }

    /// The newest event in a job's log; nil without a log, or when the entry is not a valid event.
    package func lastEvent(_ id: JobID) async throws(RedisError) -> LoggedEvent? {
        let reply = try await redis.send("XREVRANGE", .string(keys.log(id)), "+", "-", "COUNT", 1)
        guard let pair = reply.array?.first?.array, pair.count == 2, let json = pair[1].array?.last?.bytes,
            let event = try? LoggedEvent(parsing: json.array), event.id == Self.firstID(reply)
        else { return nil }
        return event
    }

    /// The event in a job's log with this id, nil if there is none, and the first id in the log from this one on, nil if the log does not reach as
    /// far. Both are read by one command: a worker may write the rest of the log at any moment.
    func history(_ id: JobID, at event: EventID) async throws(RedisError) -> (logged: LoggedEvent?, reached: EventID?) {
        let reply = try await redis.send("XRANGE", .string(keys.log(id)), .string(event.description), "+", "COUNT", 1)
        let reached = Self.firstID(reply)
        let json = reached == event ? reply.array?.first?.array?.last?.array?.last?.bytes : nil
        return (json.flatMap { try? LoggedEvent(parsing: $0.array) }, reached)
    }

    /// Queues a running job again, so that a new attempt replaces this one; does nothing in another state.
    func startAgain(_ id: JobID, attempt: Int) async throws(RedisError) {
        let partition = keys.partition(of: id.rawValue)
        _ = try await redis.run(
            Scripts.startAgain,
            keys: [keys.record(id), keys.log(id), keys.returned(partition: partition)] + keys.queues(partition: partition),
            arguments: [.integer(attempt), .string(Keys.group), .string(JobConsumer.handedBackOwner)])
    }

    /// Whether each job has a record.
    package func areKnown(_ ids: [JobID]) async throws(RedisError) -> [Bool] {
        var pipeline = RedisPipeline()
        for id in ids { pipeline.append("EXISTS", .string(keys.record(id))) }
        return try await redis.send(pipeline).map { $0.integer != 0 }
    }

    /// Ends jobs as failed whose queue entries are gone, because an operator has deleted or trimmed their queue.
    /// - Parameter jobs: the jobs to check. `entry`: the value of the record's field `entry` at an earlier look; nil if unknown, and then a job
    ///   without a record is not ended. `attempt`: the newest attempt in the events that readers have; 0 if they have none.
    package func endJobsWithoutEntry(_ jobs: [(id: JobID, entry: String?, attempt: Int)]) async throws(RedisError) {
        for (id, entry, attempt) in jobs {
            let check = settings.entryCheck(of: id, entry: entry ?? "", attempt: attempt)
            _ = try await redis.run(Scripts.checkEntry, keys: check.keys, arguments: check.arguments)
        }
    }

    /// The id of the first entry in a reply of XRANGE or XREVRANGE.
    package static func firstID(_ reply: RESPValue) -> EventID? {
        reply.array?.first?.array?.first?.string.flatMap { EventID($0) }
    }
}

extension QueueSettings {
    /// The keys and arguments of `Scripts.checkEntry`, whose file documents them.
    func entryCheck(of id: JobID, entry: String, attempt: Int) -> (keys: [String], arguments: [RedisArgument]) {
        (
            [keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id)] + keys.queues(partition: keys.partition(of: id.rawValue)),
            [.integer(leaseMilliseconds), .integer(retentionSeconds), .string(entry), .integer(attempt)]
        )
    }
}

extension ByteBuffer {
    /// All readable bytes.
    package var array: [UInt8] { [UInt8](readableBytesView) }
}
