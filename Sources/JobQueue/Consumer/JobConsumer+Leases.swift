import Contract
import JSONCodec
import NIOCore
import RedisClient

/// Keeping and giving up the ownership of running jobs.
extension JobConsumer {
    /// Number of connections so far to the Redis server of a partition. After a change Redis may have lost data, so that every job of the
    /// partition must be renewed before it is written or ended. Callable from any thread.
    package func connections(partition: Int) -> Int { redis.connections(for: keys.shard(partition: partition)) }

    /// Whether the Redis server of a partition is reachable, in a cluster, where the other partitions may be served without it. True for a
    /// single server. Callable from any thread.
    package func isReachable(partition: Int) -> Bool { redis.isReachable(keys.shard(partition: partition)) }

    /// Whether the partitions are distributed over the servers of a cluster.
    package var isCluster: Bool { redis.isCluster }

    /// Registers a callback that runs on the event loop after each later connect to a server, and when a partition has another server.
    package func onConnect(_ body: @escaping @Sendable () -> Void) { redis.onConnect(body) }

    /// Renews the leases of jobs in one partition with one script call. The answers have the order of `renewals`. Safe to repeat.
    package func renew(_ renewals: [LeaseRenewal]) async throws(QueueError) -> [LeaseAnswer] {
        try await validate(renewals).map(\.answer)
    }

    /// Renews leases like `renew`, and reports what Redis holds of the jobs, which are of one partition. A job whose record shows an older state
    /// than its attempt, because Redis has come back with older data, is queued again and reported as lost.
    /// - Parameter claimsEntries: also resets the idle time of the entries, by which workers of earlier versions take over, and notices entries
    ///   that were deleted. Redis replicates it as one command per entry; needed more than once per lease.
    package func validate(_ renewals: [LeaseRenewal], claimsEntries: Bool = true) async throws(QueueError) -> [LeaseReport] {
        guard let partition = renewals.first?.entry.partition else { return [] }
        // The script takes the jobs in the order of their queues.
        let order = renewals.indices.sorted { renewals[$0].entry.priority.order < renewals[$1].entry.priority.order }
        var scriptKeys = keys.queues(partition: partition) + [keys.returned(partition: partition)]
        var arguments: [RedisArgument] = [
            .string(Keys.group), .string(worker), .string(token), .string(Self.handedBackOwner), .integer(settings.leaseMilliseconds),
            .integer(claimsEntries ? 1 : 0),
        ]
        arguments += JobClass.allCases.map { priority in .integer(renewals.count { $0.entry.priority == priority }) }
        for index in order {
            let renewal = renewals[index]
            scriptKeys += [keys.record(renewal.id), keys.interrupt(renewal.id)]
            arguments += [.integer(renewal.attempt), .string(renewal.entry.id)]
        }
        for (position, index) in order.enumerated() where renewals[index].hasDetails {
            let renewal = renewals[index]
            scriptKeys.append(keys.log(renewal.id))
            arguments += [
                .integer(position + 1), .integer(renewal.readsLog ? 1 : 0), .string(renewal.progress.usage?.json.text ?? ""),
                .string(renewal.progress.upstream ?? ""), .string(JobProgress.text(renewal.progress.dialledMilliseconds)),
                .string(JobProgress.text(renewal.progress.firstTokenMilliseconds)), .string(renewal.written.description),
            ]
        }
        let reply = try await redis.run(Scripts.renew, keys: scriptKeys, arguments: arguments)
        guard let parts = reply.array, parts.count == 4, let lost = parts[0].array, parts[1].array != nil, parts[2].array != nil,
            let expiry = parts[3].string, Int(expiry) != nil
        else { throw redis.misfit(reply, to: "the renew script") }
        var reports = renewals.map { LeaseReport(answer: .kept, log: $0.readsLog ? LogState() : nil, leaseScore: expiry) }
        func index(_ number: RESPValue) -> Int? {
            guard let number = number.integer, (1...order.count).contains(number) else { return nil }
            return order[number - 1]
        }
        for (number, value) in parts[1].pairs {
            guard let index = index(number) else { throw redis.misfit(reply, to: "the renew script") }
            reports[index].answer = .interrupted(Self.interrupt(value, id: renewals[index].id))
        }
        for (number, id) in parts[2].pairs {
            guard let index = index(number) else { throw redis.misfit(reply, to: "the renew script") }
            reports[index].log = LogState(newest: id.string.flatMap { EventID($0) })
        }
        for number in lost {
            guard let index = index(number) else { throw redis.misfit(reply, to: "the renew script") }
            reports[index].answer = .lost
            reports[index].leaseScore = nil
        }
        return reports
    }

    /// The interrupt stored in the job's interrupt key; nil without one.
    package func interrupt(of id: JobID) async throws(QueueError) -> Interrupt? {
        let value = try await string(keys.interrupt(id))
        return value.isNull ? nil : Self.interrupt(value, id: id)
    }

    /// The audio of a job's user message; nil without any.
    package func audio(of id: JobID) async throws(QueueError) -> [UInt8]? {
        try await string(keys.audio(id)).bytes?.array
    }

    /// The value of a key; null for a missing one, and for one of another type, as in the scripts: callers repeat what fails.
    private func string(_ key: String) async throws(QueueError) -> RESPValue {
        do { return try await redis.send("GET", .string(key)) } catch {
            guard error.isWrongType else { throw error }
            return .null
        }
    }

    /// Decodes an interrupt key. A value that is not the contract's JSON still interrupts the job, with the reason USER_STOP.
    private static func interrupt(_ value: RESPValue, id: JobID) -> Interrupt {
        value.bytes.flatMap { Interrupt(parsing: $0.readableBytesUInt8Span) } ?? Interrupt(id: id, reason: InterruptReason.userStop)
    }

    /// Hands a running job back to the queue, so that another worker continues it. Counts no crash.
    /// - Parameter startsAgain: the log lacks output that readers have seen, so that the next attempt must not continue it.
    /// - Returns: false when this attempt no longer owns the job; also in a repetition after a reply that was lost.
    package func handBack(_ renewal: LeaseRenewal, startsAgain: Bool = false) async throws(QueueError) -> Bool {
        let partition = renewal.entry.partition
        let reply = try await redis.run(
            Scripts.handBack,
            keys: [
                keys.record(renewal.id), keys.queue(renewal.entry.priority, partition: partition), keys.returned(partition: partition),
                keys.log(renewal.id),
            ],
            arguments: [
                .integer(renewal.attempt), .string(renewal.entry.id), .string(Keys.group), .string(Self.handedBackOwner),
                .string((renewal.progress.usage ?? .none).json.text), .bytes(renewal.entry.job ?? []),
                .string(renewal.entry.priority.rawValue), .integer(startsAgain ? 1 : 0), .string(token),
            ])
        return reply.integer == 1
    }

    /// Checks that Redis answers, for a worker without running jobs, whose renewals send nothing.
    package func ping() async throws(QueueError) { _ = try await redis.send("PING") }
}
