import Contract
import NIOCore
import RedisClient
import Support

/// Reads the state of a deployment. The number of commands depends on nodes and partitions, never on the number of jobs.
extension JobProducer {
    /// Maximum number of workers, and of gateways, in a snapshot.
    private static let nodesShown = 1_000
    /// Partitions per pipeline.
    private static let partitionsAtOnce = 64
    /// How long the servers of a cluster may remain unknown before commands are sent, whose error then says why.
    private static let discoveryTimeout = Duration.seconds(3)

    /// Reads queues, workers and gateways. What a cluster's servers that do not answer have is left out, and stated.
    /// - Throws: `RedisError` when no server answers, or one of another deployment than a cluster answers with an error.
    package func snapshot() async throws(RedisError) -> DeploymentSnapshot {
        await waitForServers()
        let partitions = try await readPartitions(0..<keys.partitions)
        var snapshot = DeploymentSnapshot(milliseconds: partitions.compactMap(\.milliseconds).max() ?? 0)
        snapshot.unreadPartitions = keys.partitions - partitions.count
        for partition in partitions { snapshot.add(partition) }
        try await addOldestWaits(to: &snapshot, of: partitions)
        do {
            try await addNodes(to: &snapshot)
        } catch {
            guard redis.isCluster, error.code != .server else { throw error }
            snapshot.areNodesKnown = false
        }
        return snapshot
    }

    /// Waits until the servers of a cluster are known, also those that do not answer.
    func waitForServers() async {
        let deadline = ContinuousClock.now + Self.discoveryTimeout
        while redis.isCluster, redis.shards.isEmpty, ContinuousClock.now < deadline, !Task.isCancelled {
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    /// The time limit of commands to one server, with its connection: in a cluster it is short, so that a server that does not answer does not
    /// delay what the others answer. Nil for that of all commands.
    var shardTimeout: TimeAmount? { redis.isCluster ? .seconds(2) : nil }

    /// Adds live nodes and the paused classes.
    private func addNodes(to snapshot: inout DeploymentSnapshot) async throws(RedisError) {
        var pipeline = redis.makePipeline()
        pipeline.append("SMEMBERS", .string(keys.paused))
        pipeline.append("ZREVRANGE", .string(keys.workers), 0, .integer(Self.nodesShown - 1))
        pipeline.append("SRANDMEMBER", .string(keys.gateways), .integer(Self.nodesShown))
        let replies = try await redis.send(pipeline, timeout: shardTimeout)
        for reply in replies { _ = try reply.orThrow() }
        let paused = Set((replies[0].array ?? []).compactMap(\.string))
        for index in snapshot.queues.indices {
            snapshot.queues[index].isPaused = paused.contains(snapshot.queues[index].priority.rawValue)
        }
        for (name, fields) in try await heartbeats((replies[1].array ?? []).compactMap(\.string), key: keys.worker) {
            snapshot.workers.append(DeploymentSnapshot.Worker(name: name, report: WorkerReport(worker: name, fields: fields)))
        }
        for (name, fields) in try await heartbeats((replies[2].array ?? []).compactMap(\.string), key: keys.gateway) {
            snapshot.gateways.append(DeploymentSnapshot.Gateway(name: name, fields: fields))
        }
    }

    /// Sends a pipeline for each group of items, all at once.
    /// - Returns: for each item the replies to its commands, nil when its server does not answer.
    /// - Throws: when no server answers, or the only one does not.
    private func replies<Item: Sendable>(
        _ items: [Item], _ append: @escaping @Sendable (Item, inout RedisPipeline) -> Void
    ) async throws(RedisError) -> [[RESPValue]?] {
        let groups = stride(from: 0, to: items.count, by: Self.partitionsAtOnce).map {
            Array(items[$0..<min($0 + Self.partitionsAtOnce, items.count)])
        }
        let results = await withTaskGroup(of: (Int, Result<[[RESPValue]?], RedisError>).self) { tasks in
            for (number, group) in groups.enumerated() {
                tasks.addTask {
                    var pipeline = redis.makePipeline()
                    var ends: [Int] = []
                    for item in group {
                        append(item, &pipeline)
                        ends.append(pipeline.count)
                    }
                    do throws(RedisError) {
                        let replies = try await redis.send(pipeline, timeout: shardTimeout)
                        let own = zip([0] + ends, ends).map { Array(replies[$0..<$1]) }
                        return (number, .success(own.map { $0.contains(where: \.isUnavailable) ? nil : $0 }))
                    } catch {
                        return (number, .failure(error))
                    }
                }
            }
            return await tasks.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        var found: [[RESPValue]?] = []
        var failure: RedisError?
        for (number, group) in groups.enumerated() {
            switch results[number] {
            case .success(let replies)?: found += replies
            case .failure(let error)?:
                failure = error
                found += group.map { _ in nil }
            case nil: found += group.map { _ in nil }
            }
        }
        if let failure, !redis.isCluster || found.allSatisfy({ $0 == nil }) { throw failure }
        return found
    }

    /// Reads queues, dead letters and webhooks of the partitions whose server answers.
    private func readPartitions(_ partitions: Range<Int>) async throws(RedisError) -> [PartitionReading] {
        let keys = keys
        let found = try await replies(Array(partitions)) { partition, pipeline in
            for priority in JobClass.allCases {
                let key = keys.queue(priority, partition: partition)
                pipeline.append("XLEN", .string(key))
                pipeline.append("XINFO", "GROUPS", .string(key))
                pipeline.append("XPENDING", .string(key), .string(Keys.group))
            }
            pipeline.append("XLEN", .string(keys.dead(partition: partition)))
            pipeline.append("ZCARD", .string(keys.webhooks(partition: partition)))
            pipeline.append("ZCARD", .string(keys.failingWebhooks(partition: partition)))
            pipeline.append("XLEN", .string(keys.deadWebhooks(partition: partition)))
            pipeline.append("GET", .string(keys.webhookError(partition: partition)))
            // After a command with a key, whose server executes it.
            pipeline.append("TIME")
        }
        return zip(partitions, found).compactMap { partition, replies in replies.flatMap { PartitionReading(partition, $0) } }
    }

    /// Adds the waiting time of the oldest job of each class.
    private func addOldestWaits(to snapshot: inout DeploymentSnapshot, of partitions: [PartitionReading]) async throws(RedisError) {
        let keys = keys
        let waiting = partitions.flatMap { partition in partition.queues.filter { $0.waiting > 0 }.map { (partition.number, $0) } }
        guard !waiting.isEmpty else { return }
        let found = try await replies(waiting) { item, pipeline in
            let key = RedisArgument.string(keys.queue(item.1.priority, partition: item.0))
            if item.1.sorted > 0 {
                pipeline.append("XPENDING", key, .string(Keys.group), "-", "+", 1, .string(JobConsumer.waitingOwner))
            } else {
                pipeline.append("XRANGE", key, .string(item.1.lastDelivered.map { "(\($0)" } ?? "-"), "+", "COUNT", 1)
            }
        }
        for (item, replies) in zip(waiting, found) {
            guard let id = replies?.first?.array?.first?.array?.first?.string,
                let submitted = id.split(separator: "-").first.flatMap({ Int($0)?.boundedCount }),
                let index = snapshot.queues.firstIndex(where: { $0.priority == item.1.priority })
            else { continue }
            let wait = max(0, snapshot.milliseconds - submitted)
            snapshot.queues[index].oldestWaitMilliseconds = max(snapshot.queues[index].oldestWaitMilliseconds ?? 0, wait)
        }
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
        var pipeline = redis.makePipeline()
        for name in names { pipeline.append("HGETALL", .string(key(name))) }
        return zip(names, try await redis.send(pipeline, timeout: shardTimeout)).map { ($0, $1.fields) }.filter { !$0.1.isEmpty }
    }
}

/// What one partition's keys say.
private struct PartitionReading: Sendable {
    /// The queue of a class.
    struct Queue: Sendable {
        let priority: JobClass
        /// Jobs that workers have.
        let running: Int
        /// Jobs that no worker has.
        let waiting: Int
        /// Waiting jobs that are sorted by tenant: pending entries of no worker.
        let sorted: Int
        /// Waiting jobs as Redis counts them; nil when it does not know.
        let lag: Int?
        /// The last entry that was delivered; nil before the first.
        let lastDelivered: String?

        /// - Parameters: the replies to XLEN, XINFO GROUPS and XPENDING.
        init(_ priority: JobClass, length: RESPValue, groups: RESPValue, pending summary: RESPValue) {
            self.priority = priority
            let length = (length.integer ?? 0).boundedCount
            let group = (groups.array ?? []).map(\.fields).first { $0["name"] == Keys.group }
            let (running, sorted) = Self.pending(summary)
            self.running = running
            self.sorted = sorted
            waiting = max(0, length - running)
            lastDelivered = group?["last-delivered-id"]
            // Without a group no entry was delivered. Redis omits the lag after deletions in the middle of the stream; it is unknown then.
            let lag = group == nil ? length : group?["lag"].flatMap { Int($0)?.boundedCount }
            self.lag = lag.map { [waiting] in min($0 + sorted, waiting) }
        }

        /// The number of pending entries that workers have, without those that were handed back, which are waiting again; and the number of
        /// sorted ones.
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

    let number: Int
    /// The time of the partition's server since 1970; nil for an unusable reply.
    let milliseconds: Int?
    let queues: [Queue]
    let dead: Int
    /// Webhooks: waiting, failing, given up, and the last error.
    let webhooks: [RESPValue]

    /// - Parameter replies: to three commands per class, those for dead letters and webhooks, and TIME. Nil is returned for another number.
    init?(_ number: Int, _ replies: [RESPValue]) {
        let classes = JobClass.allCases
        guard replies.count == classes.count * 3 + 6 else { return nil }
        self.number = number
        let time = replies[replies.count - 1].array?.map { ($0.integer ?? 0).boundedCount } ?? []
        milliseconds = time.count == 2 ? time[0].saturatingMultiplied(by: 1_000).saturatingAdding(time[1] / 1_000).boundedCount : nil
        queues = classes.enumerated().map { index, priority in
            let first = index * 3
            return Queue(priority, length: replies[first], groups: replies[first + 1], pending: replies[first + 2])
        }
        let rest = Array(replies.dropFirst(classes.count * 3))
        dead = (rest[0].integer ?? 0).boundedCount
        webhooks = Array(rest[1...4])
    }
}

extension DeploymentSnapshot {
    /// Adds a partition's queues, dead letters and webhooks to the sums.
    fileprivate mutating func add(_ partition: PartitionReading) {
        for found in partition.queues {
            guard let index = queues.firstIndex(where: { $0.priority == found.priority }) else { continue }
            queues[index].running = queues[index].running.saturatingAdding(found.running).boundedCount
            queues[index].waiting = queues[index].waiting.saturatingAdding(found.waiting).boundedCount
            if let sum = queues[index].lag, let lag = found.lag {
                queues[index].lag = sum.saturatingAdding(lag).boundedCount
            } else {
                queues[index].lag = nil
            }
        }
        dead = dead.saturatingAdding(partition.dead).boundedCount
        webhooks.add(partition.webhooks)
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
