import Contract
import JSONCodec
import NIOCore
import RedisClient

/// The worker's commands on the queue: take, claim, renew, hand back. `OutputCommands` ends jobs, because the terminal event is written
/// together with the output.
///
/// Every method throws `RedisError` when Redis is unavailable, does not answer within the deadline or sends an unexpected reply.
package struct JobConsumer: Sendable {
    package let redis: RedisClient
    /// A separate connection for blocking reads, so that no other command waits behind them.
    package let blocking: RedisClient
    package let settings: QueueSettings
    /// The name of the consumer in the consumer group, `SLUICE_WORKER_NAME`.
    package let worker: String
    /// Distinguishes this process from other processes, earlier or concurrent, with the same worker name.
    package let token: String

    /// A consumer name that belongs to no worker. It owns the entries that were handed back, so that taking them over counts no crash.
    package static let nobody = "-returned-"

    package var keys: Keys { settings.keys }

    package init(redis: RedisClient, blocking: RedisClient, settings: QueueSettings, worker: String, token: String) {
        self.redis = redis
        self.blocking = blocking
        self.settings = settings
        self.worker = worker
        self.token = token
    }

    /// Creates missing streams and consumer groups. Groups start at id 0, so jobs submitted before the first worker ran are delivered too.
    /// - Throws: `.server` for any error reply except BUSYGROUP and WRONGTYPE.
    package func createGroups() async throws(RedisError) {
        var pipeline = RedisPipeline()
        for partition in 0..<keys.partitions {
            for queue in keys.queues(partition: partition) {
                pipeline.append("XGROUP", "CREATE", .string(queue), .string(Keys.group), "0", "MKSTREAM")
            }
        }
        for reply in try await redis.send(pipeline) {
            // A key of the wrong type affects only its own queue; `take` reports it.
            guard case .error(let message) = reply, !message.hasPrefix("BUSYGROUP"), !message.hasPrefix("WRONGTYPE") else { continue }
            throw RedisError(.server, message)
        }
    }

    /// Reads waiting entries of one partition without blocking, in the order of `classes`.
    /// - Parameter count: the maximum number of entries.
    package func take(partition: Int, classes: [JobClass], count: Int) async throws(RedisError) -> Taken {
        guard count > 0, !classes.isEmpty else { return Taken() }
        let reply = try await redis.run(
            Scripts.take, keys: classes.map { keys.queue($0, partition: partition) },
            arguments: [.string(Keys.group), .string(worker), .integer(count), .integer(Self.takenBytes)])
        guard let parts = reply.array, parts.count == 2, let values = parts[0].array, let faults = parts[1].array else {
            throw redis.misfit(reply, to: "the take script")
        }
        func priority(_ number: RESPValue) -> JobClass? {
            guard let number = number.integer, (1...classes.count).contains(number) else { return nil }
            return classes[number - 1]
        }
        var taken = Taken()
        for index in stride(from: 0, to: values.count - 2, by: 3) {
            guard let priority = priority(values[index]), let id = values[index + 1].string else { continue }
            taken.entries.append(QueueEntry(partition: partition, priority: priority, id: id, job: values[index + 2].bytes?.array))
        }
        for index in stride(from: 0, to: faults.count - 1, by: 2) {
            guard let priority = priority(faults[index]) else { continue }
            taken.faults.append((priority, RedisError(.server, faults[index + 1].string ?? "")))
        }
        return taken
    }

    /// Limit of job JSON in one reply of `take`, in bytes; exceeded by one entry, if at all. Small, because more urgent jobs that arrive
    /// meanwhile are taken only after these ones.
    private static let takenBytes = 256 << 10

    /// The result of one `take`.
    package struct Taken: Sendable {
        package var entries: [QueueEntry] = []
        /// Queues that could not be read.
        package var faults: [(priority: JobClass, error: RedisError)] = []

        package init() {}
    }

    /// Blocks until a job is submitted to any partition. Returns at most one entry per queue, or none after `milliseconds`.
    /// - Parameter excluded: keys of unreadable queues; a single one of them would make the command fail for all queues.
    package func wait(classes: [JobClass], excluding excluded: Set<String> = [], milliseconds: Int) async throws(RedisError) -> [QueueEntry]
    {
        var locations: [String: (Int, JobClass)] = [:]
        var names: [RedisArgument] = []
        for priority in classes {
            for partition in 0..<keys.partitions {
                let queue = keys.queue(priority, partition: partition)
                if excluded.contains(queue) { continue }
                locations[queue] = (partition, priority)
                names.append(.string(queue))
            }
        }
        guard !names.isEmpty else { return [] }
        let command: [RedisArgument] =
            ["XREADGROUP", "GROUP", .string(Keys.group), .string(worker), "COUNT", 1, "BLOCK", .integer(milliseconds), "STREAMS"]
            + names + names.map { _ in ">" }
        let reply = try await blocking.send(command, timeout: .milliseconds(Int64(milliseconds)) + .seconds(5))
        var entries: [QueueEntry] = []
        for stream in reply.array ?? [] {
            guard let pair = stream.array, pair.count == 2, let name = pair[0].string, let (partition, priority) = locations[name] else {
                continue
            }
            for entry in pair[1].array ?? [] {
                if let entry = Self.entry(entry, partition: partition, priority: priority) { entries.append(entry) }
            }
        }
        return entries
    }

    /// Reads entries of a queue that were delivered to this consumer and not acknowledged, because the reply with them may have been lost.
    /// - Parameter after: the entry id after which reading starts; `0-0` for all.
    package func undelivered(partition: Int, priority: JobClass, after: String, count: Int) async throws(RedisError) -> [QueueEntry] {
        let reply = try await redis.send([
            "XREADGROUP", "GROUP", .string(Keys.group), .string(worker), "COUNT", .integer(count), "STREAMS",
            .string(keys.queue(priority, partition: partition)), .string(after),
        ])
        let entries = reply.array?.first?.array?.last?.array ?? []
        return entries.compactMap { Self.entry($0, partition: partition, priority: priority) }
    }

    /// Takes over entries whose lease has expired: one step of a scan through a queue's pending entries.
    /// - Parameter cursor: `0-0` for the first step; the returned cursor is `0-0` after the last step.
    package func takeOver(partition: Int, priority: JobClass, cursor: String, count: Int) async throws(RedisError) -> (
        cursor: String, entries: [QueueEntry]
    ) {
        let reply = try await redis.send([
            "XAUTOCLAIM", .string(keys.queue(priority, partition: partition)), .string(Keys.group), .string(worker),
            .integer(settings.leaseMilliseconds),
            .string(cursor), "COUNT", .integer(count),
        ])
        guard let values = reply.array, values.count >= 2, let next = values[0].string else {
            throw redis.misfit(reply, to: "XAUTOCLAIM")
        }
        return (next, (values[1].array ?? []).compactMap { Self.entry($0, partition: partition, priority: priority) })
    }

    /// Decodes one stream entry: `[id, [field, value, …]]`; nil for another shape.
    private static func entry(_ value: RESPValue, partition: Int, priority: JobClass) -> QueueEntry? {
        guard let pair = value.array, pair.count == 2, let id = pair[0].string else { return nil }
        var job: [UInt8]?
        let fields = pair[1].array ?? []
        for index in stride(from: 0, to: fields.count - 1, by: 2) where fields[index].string == "job" {
            job = fields[index + 1].bytes?.array
        }
        return QueueEntry(partition: partition, priority: priority, id: id, job: job)
    }

    /// Claims a delivered job: starts a new attempt owned by this worker, or ends the job if it is interrupted, late or crashed too often.
    /// - Parameter leaseExpired: whether the entry was taken over. If it was, a job in state `running` counts as a crash of its worker.
    package func claim(_ job: Job, entry: QueueEntry, leaseExpired: Bool) async throws(RedisError) -> ClaimOutcome {
        let id = job.id
        var name: [UInt8] = []
        name.appendJSONString(worker)
        let reply = try await redis.run(
            Scripts.claim,
            keys: [
                keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id), keys.queue(entry.priority, partition: entry.partition),
                keys.dead(partition: entry.partition),
            ],
            arguments: [
                .string(worker), .string(token), .string(entry.id), .string(entry.priority.rawValue), .integer(leaseExpired ? 1 : 0),
                .string(job.owner ?? ""), .string(job.session ?? ""), .string(job.model ?? ""), .integer(job.deadlineMilliseconds ?? 0),
                .integer(settings.maximumCrashes), .string(job.onCrash.rawValue), .integer(settings.retentionSeconds), .string(Keys.group),
                .integer(settings.deadMaximum), .bytes(leaseExpired ? entry.job ?? [] : []), .string(job.retryOf ?? ""), .bytes(name),
                .integer(settings.deadMaximumBytes),
            ])
        guard let values = reply.array, let outcome = values.first?.string else {
            throw redis.misfit(reply, to: "the claim script")
        }
        switch outcome {
        case "claimed":
            guard values.count == 5, let attempt = values[1].integer, Self.counts.contains(attempt), let crashes = values[2].integer,
                Self.counts.contains(crashes), let now = values[3].integer, Self.times.contains(now)
            else { throw redis.misfit(reply, to: "the claim script") }
            return .claimed(
                Claim(
                    job: job, entry: entry, attempt: attempt, crashes: crashes, claimedMilliseconds: now,
                    earlierUsage: values[4].string.flatMap { try? JSON(parsing: $0) }.flatMap { Usage($0) }))
        case "busy": return .busy
        case "ended" where values.count == 2: return .ended(FailureCode(rawValue: values[1].string ?? ""))
        case "ended", "duplicate": return .gone
        default: throw redis.misfit(reply, to: "the claim script")
        }
    }

    /// Valid range of a job's attempts and crashes.
    private static let counts = 0...Int(Int32.max)
    /// Valid range of times: milliseconds since 1970, up to 2^53.
    private static let times = 0...(1 << 53)

    /// Removes an entry that is not a valid job or is in the wrong partition. If the id is known and belongs to this partition, the job is
    /// ended as `failed` with `invalid_request`.
    /// - Parameter toDeadLetters: whether to keep the entry as a dead letter.
    package func reject(_ entry: QueueEntry, id: JobID?, message: String, toDeadLetters: Bool) async throws(RedisError) {
        var scriptKeys = [keys.queue(entry.priority, partition: entry.partition), keys.dead(partition: entry.partition)]
        if let id, keys.partition(of: id.rawValue) == entry.partition {
            scriptKeys += [keys.record(id), keys.log(id), keys.out(id), keys.interrupt(id)]
        }
        _ = try await redis.run(
            Scripts.reject, keys: scriptKeys,
            arguments: [
                .string(Keys.group), .string(entry.id), .string(message), .integer(settings.retentionSeconds),
                .string(entry.priority.rawValue),
                .integer(settings.deadMaximum), .bytes(toDeadLetters ? entry.job ?? [] : []), .integer(settings.deadMaximumBytes),
            ])
    }

    /// Renews the leases of jobs in one partition with one script call. The answers have the order of `renewals`.
    package func renew(_ renewals: [LeaseRenewal]) async throws(RedisError) -> [LeaseAnswer] {
        guard !renewals.isEmpty else { return [] }
        var scriptKeys: [String] = []
        var arguments: [RedisArgument] = [.string(Keys.group), .string(worker)]
        for renewal in renewals {
            scriptKeys += [
                keys.record(renewal.id), keys.interrupt(renewal.id), keys.queue(renewal.entry.priority, partition: renewal.entry.partition),
            ]
            arguments += [
                .integer(renewal.attempt), .string(renewal.entry.id), .string(renewal.progress.usage?.json.text ?? ""),
                .string(renewal.progress.upstream ?? ""), .string(JobProgress.text(renewal.progress.dialledMilliseconds)),
                .string(JobProgress.text(renewal.progress.firstTokenMilliseconds)),
            ]
        }
        let reply = try await redis.run(Scripts.renew, keys: scriptKeys, arguments: arguments)
        guard let values = reply.array, values.count == renewals.count else {
            throw redis.misfit(reply, to: "the renew script")
        }
        return zip(renewals, values).map { renewal, value in
            switch value {
            case .integer(0): .lost
            case .integer: .kept
            default: .interrupted(Self.interrupt(value, id: renewal.id))
            }
        }
    }

    /// The interrupt stored in the job's interrupt key; nil without one.
    package func interrupt(of id: JobID) async throws(RedisError) -> Interrupt? {
        let value = try await redis.send("GET", .string(keys.interrupt(id)))
        return value.isNull ? nil : Self.interrupt(value, id: id)
    }

    /// Decodes an interrupt key. A value that is not the contract's JSON still interrupts the job, with the reason USER_STOP.
    private static func interrupt(_ value: RESPValue, id: JobID) -> Interrupt {
        value.bytes.flatMap { Interrupt(parsing: $0.readableBytesView) } ?? Interrupt(id: id, reason: InterruptReason.userStop)
    }

    /// Hands a running job back to the queue, so that another worker continues it. Counts no crash.
    /// - Returns: false when this attempt no longer owns the job.
    package func handBack(_ renewal: LeaseRenewal) async throws(RedisError) -> Bool {
        let partition = renewal.entry.partition
        let reply = try await redis.run(
            Scripts.handBack,
            keys: [keys.record(renewal.id), keys.queue(renewal.entry.priority, partition: partition), keys.returned(partition: partition)],
            arguments: [
                .integer(renewal.attempt), .string(renewal.entry.id), .string(Keys.group), .string(Self.nobody),
                .string((renewal.progress.usage ?? .none).json.text),
            ])
        return reply.integer == 1
    }

    /// Returns delivered, unclaimed entries to the queue.
    package func putBack(_ entries: [QueueEntry]) async throws(RedisError) {
        for (place, group) in Dictionary(grouping: entries, by: { [$0.partition, $0.priority.order] }) {
            guard let first = group.first else { continue }
            _ = try await redis.run(
                Scripts.putBack, keys: [keys.queue(first.priority, partition: place[0]), keys.returned(partition: place[0])],
                arguments: [.string(Keys.group), .string(worker), .string(Self.nobody)] + group.map { .string($0.id) })
        }
    }

    /// Deletes the consumers of the named worker. A consumer with pending entries is kept, so that they can still be taken over.
    package func forgetConsumer(_ name: String) async throws(RedisError) {
        for partition in 0..<keys.partitions {
            _ = try await redis.run(
                Scripts.forgetConsumer, keys: keys.queues(partition: partition), arguments: [.string(Keys.group), .string(name)])
        }
    }

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
    package func operatorRequests() async throws(RedisError) -> OperatorRequests {
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

extension JobClass {
    /// The position in `allCases`, 0 for the most urgent class.
    fileprivate var order: Int { JobClass.allCases.firstIndex(of: self) ?? 0 }
}
