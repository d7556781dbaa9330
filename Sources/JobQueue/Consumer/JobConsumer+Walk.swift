import Contract
import RedisClient
import Support

/// Entries whose leases have expired: the safety net of the lease index, and the end of interrupted jobs for which no slot is free.
extension JobConsumer {
    /// Entries per call of the walk script.
    private static let walkedAtOnce = 500
    /// Expired entries per queue that one call of `endInterrupted` looks at.
    private static let interruptedAtOnce = 100
    /// Bytes of entries per queue that one call of `endInterrupted` reads.
    static let interruptedBytesAtOnce = 512 << 10

    /// The result of a walk through the pending entries.
    package struct Walk: Sendable, Equatable {
        /// Number of entries without a lease in the index. They are taken over next.
        package var added = 0
        /// Number of waiting entries that had to be sorted by tenant again.
        package var sorted = 0
    }

    /// Looks for pending entries that the lease index does not hold: of workers of an earlier version, or of replies that were lost. One
    /// worker at a time walks, once per lease; for the others the call costs a single SET. See `partitionsToVisit` for many partitions.
    /// - Returns: nil when a worker has walked in the last lease.
    package func walkPending() async throws(QueueError) -> Walk? {
        let lock = try await redis.send("SET", .string(keys.walk), .string(worker), "NX", "PX", .integer(settings.leaseMilliseconds))
        guard !lock.isNull else { return nil }
        var walk = Walk()
        for partition in try await partitionsToVisit() where isReachable(partition: partition) {
            for queue in keys.queues(partition: partition) { try await walkPending(queue, &walk) }
        }
        return walk
    }

    private func walkPending(_ queue: String, _ walk: inout Walk) async throws(QueueError) {
        var start = "-"
        var sorts = 0
        repeat {
            let reply = try await redis.run(
                Scripts.walk, keys: [queue],
                arguments: [
                    .string(Keys.group), .integer(settings.leaseMilliseconds), .string(start), .integer(Self.walkedAtOnce), .integer(sorts),
                ])
            guard let parts = reply.array, parts.count == 4, let next = parts[0].string, let more = parts[1].integer,
                let added = parts[2].integer, let sorted = parts[3].integer, next != start
            else { throw redis.misfit(reply, to: "the walk script") }
            (start, sorts) = (next, more)
            walk.added += added.boundedCount
            walk.sorted += sorted.boundedCount
        } while !start.isEmpty
    }

    /// Ends interrupted jobs whose leases have expired. For a worker without a free slot, which takes no entries over. One worker at a time
    /// does so per partition and renewal interval.
    /// - Returns: the number of jobs ended.
    package func endInterrupted() async throws(QueueError) -> Int {
        var ended = 0
        for partition in 0..<keys.partitions where isReachable(partition: partition) {
            let reply = try await redis.run(
                Scripts.endInterrupted, keys: keys.queues(partition: partition),
                arguments: [
                    .integer(settings.retentionSeconds), .string(Keys.group), .integer(Self.interruptedAtOnce),
                    .integer(max(1, settings.renewalInterval.wholeMilliseconds / 2)), .integer(Self.interruptedBytesAtOnce),
                ])
            ended += (reply.integer ?? 0).boundedCount
        }
        return ended
    }
}
