import Contract
import JSONCodec
import NIOCore
import RedisClient

/// The worker's side of the contract: take, claim, renew, hand back. What ends a job is in `OutputCommands`, as it goes with the output.
package struct JobConsumer: Sendable {
    package let redis: RedisClient
    /// For reads that block: nothing else may wait behind them.
    package let blocking: RedisClient
    package let settings: QueueSettings
    /// The consumer's name, `SLUICE_WORKER_NAME`.
    package let worker: String
    /// Tells this process from an earlier or another one of the same name.
    package let token: String

    /// The consumer that owns entries which were given back: nobody, so that taking them over counts no crash.
    package static let nobody = "-returned-"

    package var keys: Keys { settings.keys }

    package init(redis: RedisClient, blocking: RedisClient, settings: QueueSettings, worker: String, token: String) {
        self.redis = redis
        self.blocking = blocking
        self.settings = settings
        self.worker = worker
        self.token = token
    }

    /// Creates streams and groups where they are missing. A group begins at 0: what was submitted before any worker ran is not skipped.
    package func createGroups() async throws(RedisError) {
        var pipeline = RedisPipeline()
        for partition in 0..<keys.partitions {
            for queue in keys.queues(partition: partition) {
                pipeline.append("XGROUP", "CREATE", .string(queue), .string(Keys.group), "0", "MKSTREAM")
            }
        }
        for reply in try await redis.send(pipeline) {
            // A key that is no stream concerns its own queue alone: `take` reports it.
            guard case .error(let message) = reply, !message.hasPrefix("BUSYGROUP"), !message.hasPrefix("WRONGTYPE") else { continue }
            throw RedisError(.server, message)
        }
    }

    /// Takes what waits in a partition, the more urgent classes first; returns at once.
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

    /// Bytes of jobs in one answer of `take`, exceeded by a few entries at most.
    private static let takenBytes = 8 << 20

    /// What one `take` brought.
    package struct Taken: Sendable {
        package var entries: [QueueEntry] = []
        /// Queues that could not be read.
        package var faults: [(priority: JobClass, error: RedisError)] = []

        package init() {}
    }

    /// Waits for something to be submitted to any partition: at most one entry a queue, empty when nothing came.
    /// - Parameter excluded: keys of queues that cannot be read: one of them would fail the command for all.
    package func wait(classes: [JobClass], excluding excluded: Set<String> = [], milliseconds: Int) async throws(RedisError) -> [QueueEntry]
    {
        var places: [String: (Int, JobClass)] = [:]
        var names: [RedisArgument] = []
        for priority in classes {
            for partition in 0..<keys.partitions {
                let queue = keys.queue(priority, partition: partition)
                if excluded.contains(queue) { continue }
                places[queue] = (partition, priority)
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
            guard let pair = stream.array, pair.count == 2, let name = pair[0].string, let (partition, priority) = places[name] else {
                continue
            }
            for entry in pair[1].array ?? [] {
                if let entry = Self.entry(entry, partition: partition, priority: priority) { entries.append(entry) }
            }
        }
        return entries
    }

    /// Entries of a queue that were delivered to this consumer and never acknowledged: the answer that carried them may have been lost.
    package func undelivered(partition: Int, priority: JobClass, after: String, count: Int) async throws(RedisError) -> [QueueEntry] {
        let reply = try await redis.send([
            "XREADGROUP", "GROUP", .string(Keys.group), .string(worker), "COUNT", .integer(count), "STREAMS",
            .string(keys.queue(priority, partition: partition)), .string(after),
        ])
        let entries = reply.array?.first?.array?.last?.array ?? []
        return entries.compactMap { Self.entry($0, partition: partition, priority: priority) }
    }

    /// One step of looking for entries whose lease ran out.
    /// - Parameter cursor: `0-0` to begin with; the returned one is `0-0` at the end.
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

    private static func entry(_ value: RESPValue, partition: Int, priority: JobClass) -> QueueEntry? {
        guard let pair = value.array, pair.count == 2, let id = pair[0].string else { return nil }
        var job: [UInt8]?
        let fields = pair[1].array ?? []
        for index in stride(from: 0, to: fields.count - 1, by: 2) where fields[index].string == "job" {
            job = fields[index + 1].bytes?.array
        }
        return QueueEntry(partition: partition, priority: priority, id: id, job: job)
    }

    /// - Parameter leaseExpired: the entry was taken over: then a running state means that its worker was lost.
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

    /// Attempts and crashes of a job.
    private static let counts = 0...Int(Int32.max)
    /// Milliseconds since 1970, up to 2^53.
    private static let times = 0...(1 << 53)

    /// Removes an entry that is no job, or lies in a partition that is not its id's; with an id of this partition the job fails by it.
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

    /// Renews leases of jobs that share a partition, in one script.
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

    /// The durable interrupt of a job, if there is one.
    package func interrupt(of id: JobID) async throws(RedisError) -> Interrupt? {
        let value = try await redis.send("GET", .string(keys.interrupt(id)))
        return value.isNull ? nil : Self.interrupt(value, id: id)
    }

    /// A durable key that is not the contract's JSON is an intent all the same: somebody wants the job to end.
    private static func interrupt(_ value: RESPValue, id: JobID) -> Interrupt {
        value.bytes.flatMap { Interrupt(parsing: $0.readableBytesView) } ?? Interrupt(id: id, reason: InterruptReason.userStop)
    }

    /// Gives a running job back so that another worker goes on with it; no crash is counted. False when it is no longer this attempt's.
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

    /// Gives entries back that were delivered and not claimed.
    package func putBack(_ entries: [QueueEntry]) async throws(RedisError) {
        for (place, group) in Dictionary(grouping: entries, by: { [$0.partition, $0.priority.order] }) {
            guard let first = group.first else { continue }
            _ = try await redis.run(
                Scripts.putBack, keys: [keys.queue(first.priority, partition: place[0]), keys.returned(partition: place[0])],
                arguments: [.string(Keys.group), .string(worker), .string(Self.nobody)] + group.map { .string($0.id) })
        }
    }

    /// Deletes this worker's consumers; those that still have something pending stay, for whoever takes it over.
    package func forgetConsumer(_ name: String) async throws(RedisError) {
        for partition in 0..<keys.partitions {
            _ = try await redis.run(
                Scripts.forgetConsumer, keys: keys.queues(partition: partition), arguments: [.string(Keys.group), .string(name)])
        }
    }

    /// What operators ask of a worker.
    package struct OperatorRequests: Sendable, Equatable {
        package var isDrainRequested = false
        /// Nil: the key is not a set, so nothing is known.
        package var pausedClasses: Set<JobClass>?
    }

    /// Reads what operators ask of this worker. To drain ends the worker, so it is believed only when the answers fit the questions: echoes
    /// around them prove that the connection's replies are in step, and two commands must agree.
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
    /// The text of a bulk string; nil for all else.
    fileprivate var bulkText: String? { if case .bulk = self { string } else { nil } }
}

extension JobClass {
    fileprivate var order: Int { JobClass.allCases.firstIndex(of: self) ?? 0 }
}
