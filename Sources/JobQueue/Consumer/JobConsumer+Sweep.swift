import Contract
import RedisClient

/// Removal of consumers left behind by dead workers, which Redis never deletes by itself, and return of entries whose consumer was deleted
/// with them.
extension JobConsumer {
    /// Maximum number of consumers checked per sweep; the others are checked by later sweeps.
    private static let sweepMaximum = 100
    /// Owns the entries that `restoreEntries` has found. Belongs to no worker.
    static let restoredOwner = "-restored-"
    /// Maximum number of entries that one sweep looks at in each queue.
    private static let restoreMaximum = 32
    /// Bytes of job JSON after which a sweep looks at no further entry of a queue.
    private static let restoreBytes = 256 << 10

    /// The result of a sweep.
    package struct Sweep: Sendable, Equatable {
        /// The names of the deleted consumers.
        package var removed: [String] = []
        /// Number of entries returned to the pending list.
        package var restored = 0
    }

    /// Deletes consumers that were idle for a lease, have no pending entries and whose worker has no heartbeat, and returns entries to the
    /// pending list that were delivered to a consumer which was deleted since. Those are taken over a lease later, unless a worker renews them.
    ///
    /// One worker at a time sweeps, once per two leases; for the other workers the call costs a single SET. See `partitionsToVisit` for many
    /// partitions.
    package func sweepConsumers() async throws(QueueError) -> Sweep {
        let lock = try await redis.send("SET", .string(keys.sweep), .string(worker), "NX", "PX", .integer(2 * settings.leaseMilliseconds))
        guard !lock.isNull else { return Sweep() }
        var sweep = Sweep()
        let partitions = try await partitionsToVisit().filter { isReachable(partition: $0) }
        for partition in partitions {
            sweep.restored += try await restoreEntries(partition: partition)
        }
        sweep.removed = try await removeConsumers(partitions)
        return sweep
    }

    private func restoreEntries(partition: Int) async throws(QueueError) -> Int {
        let reply = try await redis.run(
            Scripts.restoreEntries, keys: keys.queues(partition: partition),
            arguments: [
                .string(Keys.group), .string(Self.restoredOwner), .integer(Self.restoreMaximum), .integer(Self.restoreBytes),
                .integer(settings.leaseMilliseconds),
            ])
        return reply.integer ?? 0
    }

    private func removeConsumers(_ partitions: [Int]) async throws(QueueError) -> [String] {
        var idleNames: Set<String> = []
        for partition in partitions {
            var pipeline = RedisPipeline()
            for queue in keys.queues(partition: partition) { pipeline.append("XINFO", "CONSUMERS", .string(queue), .string(Keys.group)) }
            for reply in try await redis.send(pipeline) {
                for consumer in reply.array ?? [] {
                    if let name = idleConsumer(consumer) { idleNames.insert(name) }
                }
            }
        }
        // The consumers of handed-back and waiting entries belong to no worker and so never have a heartbeat.
        idleNames.subtract([worker, Self.handedBackOwner, Self.waitingOwner])
        let names = Array(idleNames.sorted().prefix(Self.sweepMaximum))
        guard !names.isEmpty else { return [] }
        var pipeline = RedisPipeline()
        for name in names { pipeline.append("EXISTS", .string(keys.worker(name))) }
        let alive = try await redis.send(pipeline).map { $0.integer != 0 }
        let dead = zip(names, alive).filter { !$0.1 }.map(\.0)
        for name in dead { try await forgetConsumer(name) }
        return dead
    }

    /// Deletes the consumers of the named worker. A consumer with pending entries is kept, so that they can still be taken over.
    package func forgetConsumer(_ name: String) async throws(QueueError) {
        for partition in 0..<keys.partitions where isReachable(partition: partition) {
            _ = try await redis.run(
                Scripts.forgetConsumer, keys: keys.queues(partition: partition), arguments: [.string(Keys.group), .string(name)])
        }
    }

    /// The name in an element of XINFO CONSUMERS, if the consumer has no pending entries and was idle for longer than a lease.
    private func idleConsumer(_ consumer: RESPValue) -> String? {
        let fields = consumer.fields
        let idle = fields["idle"].flatMap { Int($0) } ?? 0
        return fields["pending"] == "0" && idle > settings.leaseMilliseconds ? fields["name"] : nil
    }
}
