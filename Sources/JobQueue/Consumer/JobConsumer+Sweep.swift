import Contract
import RedisClient

/// Removal of consumers left behind by dead workers; Redis never deletes consumers by itself.
extension JobConsumer {
    /// Maximum number of consumers checked per sweep; the others are checked by later sweeps.
    private static let sweepMaximum = 100

    /// Deletes consumers that were idle for a lease, have no pending entries and whose worker has no heartbeat.
    ///
    /// One worker at a time sweeps, once per two leases; for the other workers the call costs a single SET.
    /// - Returns: the names of the deleted consumers.
    package func sweepConsumers() async throws(QueueError) -> [String] {
        let lock = try await redis.send("SET", .string(keys.sweep), .string(worker), "NX", "PX", .integer(2 * settings.leaseMilliseconds))
        guard !lock.isNull else { return [] }
        var idleNames: Set<String> = []
        for partition in 0..<keys.partitions {
            var pipeline = RedisPipeline()
            for queue in keys.queues(partition: partition) { pipeline.append("XINFO", "CONSUMERS", .string(queue), .string(Keys.group)) }
            for reply in try await redis.send(pipeline) {
                for consumer in reply.array ?? [] {
                    if let name = idleConsumer(consumer) { idleNames.insert(name) }
                }
            }
        }
        // The consumer of handed-back entries belongs to no worker and so never has a heartbeat.
        idleNames.subtract([worker, Self.handedBackOwner])
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
        for partition in 0..<keys.partitions {
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
