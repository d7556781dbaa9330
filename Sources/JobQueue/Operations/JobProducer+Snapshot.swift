import Contract
import RedisClient
import Support

/// Reads the state of a deployment. The number of commands depends on nodes and partitions, never on the number of jobs.
extension JobProducer {
    /// Maximum number of workers, and of gateways, in a snapshot.
    private static let nodesShown = 1_000

    /// Reads queues, workers and gateways.
    /// - Throws: `RedisError` when Redis is unavailable or answers with an error.
    package func snapshot() async throws(RedisError) -> DeploymentSnapshot {
        var pipeline = RedisPipeline()
        pipeline.append("TIME")
        pipeline.append("SMEMBERS", .string(keys.paused))
        pipeline.append("ZREVRANGE", .string(keys.workers), 0, .integer(Self.nodesShown - 1))
        pipeline.append("SRANDMEMBER", .string(keys.gateways), .integer(Self.nodesShown))
        var replies: [RESPValue] = []
        for reply in try await redis.send(pipeline) { replies.append(try reply.orThrow()) }
        let time = replies[0].array?.map { ($0.integer ?? 0).boundedCount } ?? []
        guard time.count == 2 else { throw RedisError(.protocolViolation, "unexpected reply to TIME: \(replies[0])") }
        var snapshot = DeploymentSnapshot(
            milliseconds: time[0].saturatingMultiplied(by: 1_000).saturatingAdding(time[1] / 1_000).boundedCount)
        let paused = Set((replies[1].array ?? []).compactMap(\.string))
        for index in snapshot.queues.indices {
            snapshot.queues[index].isPaused = paused.contains(snapshot.queues[index].priority.rawValue)
        }
        for partition in 0..<keys.partitions { try await snapshot.add(partition, of: self) }
        for (name, fields) in try await heartbeats((replies[2].array ?? []).compactMap(\.string), key: keys.worker) {
            snapshot.workers.append(DeploymentSnapshot.Worker(name: name, report: WorkerReport(worker: name, fields: fields)))
        }
        for (name, fields) in try await heartbeats((replies[3].array ?? []).compactMap(\.string), key: keys.gateway) {
            snapshot.gateways.append(DeploymentSnapshot.Gateway(name: name, fields: fields))
        }
        return snapshot
    }

    /// Maximum number of workers that `servedModels` asks, those with the newest heartbeats.
    private static let workersAsked = 100

    /// The models that live workers serve by name, sorted.
    package func servedModels() async throws(RedisError) -> [String] { try await models(in: "models") }

    /// The models for which an upstream of a live worker can count tokens, sorted; `WorkerReport.anyModel` means every model.
    package func countedModels() async throws(RedisError) -> [String] { try await models(in: "counted_models") }

    /// The models in a field of the workers' heartbeats, sorted.
    private func models(in field: String) async throws(RedisError) -> [String] {
        let reply = try await redis.send("ZREVRANGE", .string(keys.workers), 0, .integer(Self.workersAsked - 1))
        let names = (reply.array ?? []).compactMap(\.string)
        guard !names.isEmpty else { return [] }
        var pipeline = RedisPipeline()
        for name in names { pipeline.append("HGET", .string(keys.worker(name)), .string(field)) }
        var models: Set<String> = []
        for reply in try await redis.send(pipeline) { models.formUnion(WorkerReport.models(parsing: reply.string)) }
        return models.sorted()
    }

    /// The heartbeats of the live nodes, sorted by name.
    private func heartbeats(
        _ names: [String], key: (String) -> String
    ) async throws(RedisError) -> [(name: String, fields: [String: String])] {
        guard !names.isEmpty else { return [] }
        let names = names.sorted()
        var pipeline = RedisPipeline()
        for name in names { pipeline.append("HGETALL", .string(key(name))) }
        return zip(names, try await redis.send(pipeline)).map { ($0, $1.fields) }.filter { !$0.1.isEmpty }
    }
}

extension DeploymentSnapshot {
    /// Adds a partition's queues and dead letters to the sums.
    fileprivate mutating func add(_ partition: Int, of queue: JobProducer) async throws(RedisError) {
        var pipeline = RedisPipeline()
        for found in queues {
            let key = queue.keys.queue(found.priority, partition: partition)
            pipeline.append("XLEN", .string(key))
            pipeline.append("XINFO", "GROUPS", .string(key))
            pipeline.append("XPENDING", .string(key), .string(Keys.group))
        }
        let keys = queue.keys
        pipeline.append("ZCARD", .string(keys.webhooks(partition: partition)))
        pipeline.append("ZCARD", .string(keys.failingWebhooks(partition: partition)))
        pipeline.append("XLEN", .string(keys.deadWebhooks(partition: partition)))
        pipeline.append("GET", .string(keys.webhookError(partition: partition)))
        pipeline.append("XLEN", .string(queue.keys.dead(partition: partition)))
        let replies = try await queue.redis.send(pipeline)
        for index in queues.indices {
            let length = (replies[index * 3].integer ?? 0).boundedCount
            let group = (replies[index * 3 + 1].array ?? []).map(\.fields).first { $0["name"] == Keys.group }
            let (running, sorted) = Self.pending(replies[index * 3 + 2])
            queues[index].running = queues[index].running.saturatingAdding(running).boundedCount
            queues[index].waiting = queues[index].waiting.saturatingAdding(max(0, length - running)).boundedCount
            // Without a group no entry was delivered. Redis omits the lag after deletions in the middle of the stream; it is unknown then.
            if let sum = queues[index].lag, let lag = group == nil ? length : group?["lag"].flatMap({ Int($0)?.boundedCount }) {
                queues[index].lag = sum.saturatingAdding(min(lag + sorted, max(0, length - running))).boundedCount
            } else {
                queues[index].lag = nil
            }
            guard length > running else { continue }
            let after = group?["last-delivered-id"].map { "(\($0)" } ?? "-"
            let key = queue.keys.queue(queues[index].priority, partition: partition)
            let next = try await queue.redis.send(
                sorted > 0
                    ? ["XPENDING", .string(key), .string(Keys.group), "-", "+", 1, .string(JobConsumer.waitingOwner)]
                    : ["XRANGE", .string(key), .string(after), "+", "COUNT", 1])
            if let id = next.array?.first?.array?.first?.string,
                let submitted = id.split(separator: "-").first.flatMap({ Int($0)?.boundedCount })
            {
                queues[index].oldestWaitMilliseconds = max(queues[index].oldestWaitMilliseconds ?? 0, milliseconds - submitted, 0)
            }
        }
        webhooks.add(Array(replies.dropFirst(queues.count * 3)))
        dead = dead.saturatingAdding((replies.last?.integer ?? 0).boundedCount).boundedCount
    }

    /// The number of pending entries that workers have, without those that were handed back, which are waiting again; and the number of
    /// waiting entries that are sorted by tenant, which are pending entries of no worker.
    private static func pending(_ summary: RESPValue) -> (running: Int, sorted: Int) {
        guard let parts = summary.array, parts.count == 4, let total = parts[0].integer else { return (0, 0) }
        func count(_ consumer: String) -> Int {
            let found = (parts[3].array ?? []).first { $0.array?.first?.string == consumer }
            return (found?.array?.last?.integer ?? 0).boundedCount
        }
        let sorted = count(JobConsumer.waitingOwner)
        return (max(0, total.boundedCount - count(JobConsumer.handedBackOwner) - sorted), sorted)
    }
}

extension DeploymentSnapshot.Webhooks {
    /// Adds a partition's numbers: waiting, failing, dead, last error.
    fileprivate mutating func add(_ replies: [RESPValue]) {
        guard replies.count >= 4 else { return }
        func sum(_ old: Int, _ reply: RESPValue) -> Int { old.saturatingAdding((reply.integer ?? 0).boundedCount).boundedCount }
        waiting = sum(waiting, replies[0])
        failing = sum(failing, replies[1])
        dead = sum(dead, replies[2])
        guard let parts = replies[3].string?.split(separator: " ", maxSplits: 1), parts.count == 2,
            let milliseconds = Int(parts[0])?.boundedCount, milliseconds > lastError?.milliseconds ?? 0
        else { return }
        lastError = (String(parts[1]).cut(toBytes: 300), milliseconds)
    }
}
