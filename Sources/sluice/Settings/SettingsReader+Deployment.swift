import Contract
import JobQueue
import RedisClient

/// The settings that every node of a deployment shares: the address of Redis and the queue's limits.
struct DeploymentSettings: Sendable {
    var queue: QueueSettings
    var redisURL: RedisURL
    var redis: RedisSettings
}

extension SettingsReader {
    /// The shared settings; nil when the address of Redis is invalid.
    mutating func deployment() -> DeploymentSettings? {
        let queue = queue()
        var redis = RedisSettings()
        redis.caFile = text("SLUICE_REDIS_CA_FILE")
        guard let text = text("SLUICE_REDIS_URL") else { return nil }
        do {
            return DeploymentSettings(queue: queue, redisURL: try RedisURL(text), redis: redis)
        } catch {
            fault(
                "SLUICE_REDIS_URL", error.message,
                "write redis://[user:password@]host:port[/db], rediss://…, unix:///path, redis+sentinel://… or redis+cluster://…")
            return nil
        }
    }

    /// The queue's settings; unset ones keep the defaults of `QueueSettings`.
    mutating func queue() -> QueueSettings {
        var queue = QueueSettings()
        let namespace = text("SLUICE_NAMESPACE") ?? queue.keys.namespace
        if namespace.utf8.count > 100 || namespace.contains(where: { "{}*?[]^\\".contains($0) || $0.isWhitespace }) {
            fault(
                "SLUICE_NAMESPACE", "it is not valid in a Redis key", "write at most 100 characters without spaces, braces and * ? [ ] ^ \\"
            )
        }
        queue.keys = Keys(namespace: namespace, partitions: integer("SLUICE_PARTITIONS") ?? 1)
        if let lease = duration("SLUICE_LEASE") { queue.lease = lease }
        if let retention = duration("SLUICE_RETENTION") { queue.retention = retention }
        if let maximum = integer("SLUICE_QUEUE_MAX") { queue.queueMaximum = maximum }
        if let maximum = integer("SLUICE_QUEUE_MAX_PER_TENANT") { queue.ownerQueueMaximum = maximum }
        if let maximum = integer("SLUICE_QUEUE_MAX_BYTES") { queue.queueMaximumBytes = maximum }
        if let maximum = integer("SLUICE_QUEUE_MAX_BYTES_PER_TENANT") { queue.ownerQueueMaximumBytes = maximum }
        if let maximum = integer("SLUICE_LOG_MAX") { queue.logMaximum = maximum }
        if let maximum = integer("SLUICE_DEAD_MAX") { queue.deadMaximum = maximum }
        if let maximum = integer("SLUICE_DEAD_MAX_BYTES") { queue.deadMaximumBytes = maximum }
        if let maximum = integer("SLUICE_MAX_CRASHES") { queue.maximumCrashes = maximum }
        return queue
    }
}
