import Contract
import JSONCodec
import RedisClient

/// Claiming delivered entries: the start of an attempt, and what becomes of entries that are not run.
extension JobConsumer {
    /// Claims a delivered job: starts a new attempt owned by this worker, or ends the job if it is interrupted, late or crashed too often.
    /// Safe to repeat after a lost reply: the script recognizes this process by its token and returns the same attempt.
    /// - Parameters:
    ///   - leaseExpired: whether the entry was taken over. If it was, a job in state `running` counts as a crash of its worker.
    ///   - knownAttempt: the newest attempt of the job that this process knows of; 0 for none. Redis may have lost it, and no attempt is given
    ///     out twice.
    package func claim(
        _ job: Job, entry: QueueEntry, leaseExpired: Bool, knownAttempt: Int = 0
    ) async throws(QueueError) -> ClaimOutcome {
        let id = job.id
        let connection = connections(partition: entry.partition)
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
                .integer(settings.deadMaximumBytes), .integer(knownAttempt), .integer(settings.leaseMilliseconds),
            ])
        guard let values = reply.array, let outcome = values.first?.string else {
            throw redis.misfit(reply, to: "the claim script")
        }
        switch outcome {
        case "claimed":
            guard values.count == 6, let attempt = values[1].integer, Self.counts.contains(attempt), let crashes = values[2].integer,
                Self.counts.contains(crashes), let now = values[3].integer, Self.times.contains(now)
            else { throw redis.misfit(reply, to: "the claim script") }
            return .claimed(
                Claim(
                    job: job, entry: entry, attempt: attempt, crashes: crashes, claimedMilliseconds: now,
                    earlierUsage: values[4].string.flatMap { try? JSON(parsing: $0) }.flatMap { Usage($0) }, connection: connection,
                    tenant: values[5].string.flatMap { TenantLimits($0) }))
        case "busy": return .busy
        case "ended" where values.count == 2: return .ended(FailureCode(rawValue: values[1].string ?? ""))
        case "ended", "duplicate", "unlisted": return .gone
        default: throw redis.misfit(reply, to: "the claim script")
        }
    }

    /// Valid range of a job's attempts and crashes.
    private static let counts = 0...Int(Int32.max)
    /// Valid range of times: milliseconds since 1970, up to 2^53.
    private static let times = 0...(1 << 53)

    /// Ends a job as `failed` with `internal` if its record and its entry are gone: no worker would ever claim it again. The attempt of the claim
    /// must have had a valid lease within the last lease; otherwise the job may have ended, and its keys expired.
    package func endIfGone(_ claim: Claim) async throws(QueueError) {
        let check = settings.entryCheck(
            of: claim.job.id, entry: "\(claim.entry.priority.rawValue) \(claim.entry.id)", attempt: claim.attempt)
        _ = try await redis.run(Scripts.checkEntry, keys: check.keys, arguments: check.arguments)
    }

    /// Removes an entry that is not a valid job or is in the wrong partition. If the id is known and belongs to this partition, the job is
    /// ended as `failed` with `invalid_request`.
    /// - Parameter toDeadLetters: whether to keep the entry as a dead letter.
    package func reject(_ entry: QueueEntry, id: JobID?, message: String, toDeadLetters: Bool) async throws(QueueError) {
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

    /// Returns delivered, unclaimed entries to the queue. After an error some of them may still be delivered to this consumer.
    package func putBack(_ entries: [QueueEntry]) async throws(QueueError) {
        for (place, group) in Dictionary(grouping: entries, by: { [$0.partition, $0.priority.order] }) {
            guard let first = group.first else { continue }
            _ = try await redis.run(
                Scripts.putBack, keys: [keys.queue(first.priority, partition: place[0]), keys.returned(partition: place[0])],
                arguments: [.string(Keys.group), .string(worker), .string(Self.handedBackOwner)] + group.map { .string($0.id) })
        }
    }
}

extension JobClass {
    /// The position in `allCases`, 0 for the most urgent class.
    var order: Int { JobClass.allCases.firstIndex(of: self) ?? 0 }
}
