import Contract
import JobQueue
import RedisClient
import Support

/// The settings that every node of a deployment shares: the address of Redis and the queue's limits.
///
/// The only use of `RedisClient` in this module: the address is parsed here and handed on unchanged.
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
        (redis.certificateFile, redis.keyFile) = (text("SLUICE_REDIS_CERTIFICATE_FILE"), text("SLUICE_REDIS_KEY_FILE"))
        if (redis.certificateFile == nil) != (redis.keyFile == nil) {
            fault(
                redis.keyFile == nil ? "SLUICE_REDIS_KEY_FILE" : "SLUICE_REDIS_CERTIFICATE_FILE", "it is not set",
                "set both SLUICE_REDIS_CERTIFICATE_FILE and SLUICE_REDIS_KEY_FILE, or none")
        }
        redis.sentinelPassword = secret("SLUICE_REDIS_SENTINEL_PASSWORD")
        redis.waitReplicas = integer("SLUICE_REDIS_WAIT_REPLICAS") ?? 0
        guard let text = text("SLUICE_REDIS_URL") else { return nil }
        do throws(RedisError) {
            let url = try RedisURL(text)
            return DeploymentSettings(queue: queue, redisURL: url, redis: redis)
        } catch {
            fault(
                "SLUICE_REDIS_URL", error.message,
                "write redis://[user:password@]host:port[/db], rediss://…, unix:///path, redis+sentinel://host:port,host:port/service or "
                    + "redis+cluster://host:port,host:port")
            return nil
        }
    }

    /// The secret of the setting `name`, or of the file in the setting `<name>_FILE`; nil when neither is set.
    mutating func secret(_ name: String) -> String? {
        let value = text(name)
        guard let path = text(name + "_FILE") else { return value }
        if value != nil { fault(name + "_FILE", "it is set together with \(name)", "keep one of them") }
        do { return try FileContents.readKey(path) } catch {
            fault(name + "_FILE", "the file \(path) cannot be used: \(error)", "name a file that contains the secret")
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
