import Contract
import JSONCodec
import NIOCore
import RedisClient

/// Keeping and giving up the ownership of running jobs.
extension JobConsumer {
    /// Renews the leases of jobs in one partition with one script call. The answers have the order of `renewals`. Safe to repeat.
    package func renew(_ renewals: [LeaseRenewal]) async throws(QueueError) -> [LeaseAnswer] {
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
    package func interrupt(of id: JobID) async throws(QueueError) -> Interrupt? {
        let value = try await redis.send("GET", .string(keys.interrupt(id)))
        return value.isNull ? nil : Self.interrupt(value, id: id)
    }

    /// Decodes an interrupt key. A value that is not the contract's JSON still interrupts the job, with the reason USER_STOP.
    private static func interrupt(_ value: RESPValue, id: JobID) -> Interrupt {
        value.bytes.flatMap { Interrupt(parsing: $0.readableBytesView) } ?? Interrupt(id: id, reason: InterruptReason.userStop)
    }

    /// Hands a running job back to the queue, so that another worker continues it. Counts no crash.
    /// - Returns: false when this attempt no longer owns the job; also in a repetition after a reply that was lost.
    package func handBack(_ renewal: LeaseRenewal) async throws(QueueError) -> Bool {
        let partition = renewal.entry.partition
        let reply = try await redis.run(
            Scripts.handBack,
            keys: [keys.record(renewal.id), keys.queue(renewal.entry.priority, partition: partition), keys.returned(partition: partition)],
            arguments: [
                .integer(renewal.attempt), .string(renewal.entry.id), .string(Keys.group), .string(Self.handedBackOwner),
                .string((renewal.progress.usage ?? .none).json.text),
            ])
        return reply.integer == 1
    }

    /// Checks that Redis answers, for a worker without running jobs, whose renewals send nothing.
    package func ping() async throws(QueueError) { _ = try await redis.send("PING") }
}
