import Contract
import RedisClient

/// Consumers of workers that died: Redis keeps them for ever.
extension JobConsumer {
    /// Consumers looked at in one turn; the rest has its turn later.
    private static let sweptAtOnce = 100

    /// Deletes consumers that were not heard of for a lease, have nothing pending and whose worker shows no sign of life. One worker at a
    /// time looks, once in two leases; for the others it is a single SET.
    /// - Returns: the names of those that were deleted.
    package func sweepConsumers() async throws(RedisError) -> [String] {
        let turn = try await redis.send("SET", .string(keys.sweep), .string(worker), "NX", "PX", .integer(2 * settings.leaseMilliseconds))
        guard !turn.isNull else { return [] }
        var silent: Set<String> = []
        for partition in 0..<keys.partitions {
            var pipeline = RedisPipeline()
            for queue in keys.queues(partition: partition) { pipeline.append("XINFO", "CONSUMERS", .string(queue), .string(Keys.group)) }
            for reply in try await redis.send(pipeline) {
                for consumer in reply.array ?? [] {
                    if let name = silentConsumer(consumer) { silent.insert(name) }
                }
            }
        }
        // The consumer that stands for nobody has no sign of life by nature.
        silent.subtract([worker, Self.nobody])
        let names = Array(silent.sorted().prefix(Self.sweptAtOnce))
        guard !names.isEmpty else { return [] }
        var pipeline = RedisPipeline()
        for name in names { pipeline.append("EXISTS", .string(keys.worker(name))) }
        let alive = try await redis.send(pipeline).map { $0.integer != 0 }
        let dead = zip(names, alive).filter { !$0.1 }.map(\.0)
        for name in dead { try await forgetConsumer(name) }
        return dead
    }

    /// The name in an element of XINFO CONSUMERS, if it has nothing pending and was idle for a lease.
    private func silentConsumer(_ consumer: RESPValue) -> String? {
        let values = consumer.array ?? []
        var facts: [String: RESPValue] = [:]
        for index in stride(from: 0, to: values.count - 1, by: 2) {
            if let field = values[index].string { facts[field] = values[index + 1] }
        }
        guard facts["pending"]?.integer == 0, let idle = facts["idle"]?.integer, idle > settings.leaseMilliseconds else { return nil }
        return facts["name"]?.string
    }
}
