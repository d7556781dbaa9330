import Contract
import NIOCore
import RedisClient
import Support

/// The worker's commands on the queue: take, claim, renew, hand back, write output and end jobs.
///
/// Methods are callable from any thread; on `eventLoop` they run without a change of thread. Every asynchronous method throws a `QueueError`
/// when Redis is unavailable, does not answer within the deadline or sends an unexpected reply. After `connectionLost` and `timeout` it is
/// unknown whether Redis executed the call. All methods are safe to repeat, with one exception: entries in a lost reply of `take` or `wait`
/// are delivered to this consumer and not delivered again; `undelivered` reads them.
package struct JobConsumer: Sendable {
    let redis: RedisClient
    /// A separate connection for blocking reads, so that no other command waits behind them.
    let blocking: RedisClient
    /// A separate connection for reads of logs.
    let logs: RedisClient
    /// Nil when no replicas are waited for.
    private let replicas: ReplicaWait?
    package let settings: QueueSettings
    /// The name of the consumer in the consumer group, `SLUICE_WORKER_NAME`.
    package let worker: String
    /// Distinguishes this process from other processes, earlier or concurrent, with the same worker name.
    package let token: String

    /// A consumer name that belongs to no worker. It owns the entries that were handed back, so that taking them over counts no crash.
    static let handedBackOwner = "-returned-"
    /// A consumer name that belongs to no worker. It owns the waiting entries that are sorted by tenant. The scripts use the same name.
    static let waitingOwner = "-waiting-"

    var keys: Keys { settings.keys }

    /// The number of partitions of the deployment.
    package var partitions: Int { keys.partitions }
    /// The partition that a job's id belongs to.
    package func partition(of id: JobID) -> Int { keys.partition(of: id.rawValue) }

    /// The event loop of the connections.
    package var eventLoop: any EventLoop { redis.eventLoop }
    /// Runs actors and tasks on `eventLoop`. Actors that call the consumer or each other per job share this one instance, which saves
    /// thread changes (see `LoopExecutor`).
    package var executor: QueueExecutor { redis.executor }
    /// The time of the next renewal of leases, about a renewal interval from now.
    package var nextRenewal: NIODeadline { redis.due(TimeAmount(settings.renewalInterval), after: .now()) }
    /// Whether the connection for commands is up.
    package var isConnected: Bool { redis.isConnected }

    /// - Parameters:
    ///   - connections: must run while the consumer is used.
    ///   - worker: name of the consumer in the consumer group, `SLUICE_WORKER_NAME`.
    ///   - token: see `token`.
    package init(connections: ConsumerConnections, settings: QueueSettings, worker: String, token: String) {
        self.init(
            redis: connections.commands, blocking: connections.blocking, logs: connections.logs, replicas: connections.replicas,
            settings: settings, worker: worker, token: token)
    }

    package init(
        redis: RedisClient, blocking: RedisClient, logs: RedisClient? = nil, replicas: ReplicaWait? = nil, settings: QueueSettings,
        worker: String, token: String
    ) {
        self.redis = redis
        self.logs = logs ?? redis
        self.replicas = replicas
        self.blocking = blocking
        self.settings = settings
        self.worker = worker
        self.token = token
    }

    /// Calls `done` when enough replicas have what was written before, or after 250 ms; at once when no replicas are waited for. `done` runs
    /// on any thread.
    package func whenReplicated(partition: Int, _ done: @escaping @Sendable () -> Void) {
        if let replicas { replicas.wait(keys.replicated(partition: partition), done) } else { done() }
    }

    /// Whether `whenReplicated` waits.
    package var waitsForReplicas: Bool { replicas != nil }

    /// Creates missing streams and consumer groups. Groups start at id 0, so jobs submitted before the first worker ran are delivered too.
    /// - Throws: `.server` for any error reply except BUSYGROUP and WRONGTYPE.
    package func createGroups() async throws(QueueError) {
        var pipeline = RedisPipeline()
        for partition in 0..<keys.partitions {
            for queue in keys.queues(partition: partition) {
                pipeline.append("XGROUP", "CREATE", .string(queue), .string(Keys.group), "0", "MKSTREAM")
            }
        }
        for reply in try await redis.send(pipeline) {
            // A key of the wrong type affects only its own queue; `take` reports it.
            // The groups of a shard that is not reachable are created when it is.
            guard case .error(let message) = reply, !message.hasPrefix("BUSYGROUP"), !message.hasPrefix("WRONGTYPE"), !reply.isUnavailable
            else { continue }
            throw RedisError(.server, message)
        }
    }

    /// Reads entries of one partition without blocking: first those with expired leases and returned ones, then waiting ones in the order of
    /// `classes`, and within a class by tenant.
    /// - Parameters:
    ///   - count: the maximum number of entries.
    ///   - isForced: see `Taken.isIncomplete`.
    package func take(partition: Int, classes: [JobClass], count: Int, isForced: Bool = false) async throws(QueueError) -> Taken {
        guard count > 0, !classes.isEmpty else { return Taken() }
        let reply = try await redis.run(
            Scripts.take, keys: classes.map { keys.queue($0, partition: partition) },
            arguments: [
                .string(Keys.group), .string(worker), .integer(count), .integer(Self.takenBytes), .integer(settings.leaseMilliseconds),
                .string(keys.returned(partition: partition)), .integer(idleMilliseconds),
                .integer(isForced ? 1 : 0),
            ])
        guard let parts = reply.array, parts.count == 3, let values = parts[0].array, parts[1].array != nil else {
            throw redis.misfit(reply, to: "the take script")
        }
        func priority(_ number: RESPValue) -> JobClass? {
            guard let number = number.integer, (1...classes.count).contains(number) else { return nil }
            return classes[number - 1]
        }
        var taken = Taken()
        taken.isIncomplete = parts[2].integer == 1
        for index in stride(from: 0, to: values.count - 3, by: 4) {
            guard let priority = priority(values[index]), let id = values[index + 1].string else { continue }
            let entry = QueueEntry(partition: partition, priority: priority, id: id, job: values[index + 2].bytes?.array)
            if values[index + 3].integer == 1 { taken.expired.append(entry) } else { taken.entries.append(entry) }
        }
        for (number, message) in parts[1].pairs {
            guard let priority = priority(number) else { continue }
            taken.faults.append((priority, RedisError(.server, message.string ?? "")))
        }
        return taken
    }

    /// How long a worker that received nothing counts as waiting for jobs. With several partitions it does not take from each of them again at
    /// every renewal.
    private var idleMilliseconds: Int { keys.partitions > 1 ? 86_400_000 : 2 * settings.renewalInterval.wholeMilliseconds }

    /// Limit of job JSON in one reply of `take`, in bytes; exceeded by one entry, if at all. Small, because more urgent jobs that arrive
    /// meanwhile are taken only after these ones.
    private static let takenBytes = 256 << 10

    /// The result of one `take`.
    package struct Taken: Sendable {
        /// Waiting entries.
        package var entries: [QueueEntry] = []
        /// Entries whose lease has expired, or that were returned to their queue.
        package var expired: [QueueEntry] = []
        /// The script has reached a limit of work before it found out which entries are next; the call is to be repeated. A forced call does
        /// not sort all undelivered entries first.
        package var isIncomplete = false
        /// Queues that could not be read.
        package var faults: [(priority: JobClass, error: RedisError)] = []

        package init() {}

        package var isEmpty: Bool { entries.isEmpty && expired.isEmpty }
        package var count: Int { entries.count + expired.count }
    }

    /// Blocks until a job is submitted. Returns none after `milliseconds`.
    /// - Parameters:
    ///   - count: the maximum number of entries per queue.
    ///   - partition: the only partition to wait for, nil for all. In a cluster a command reads one partition.
    ///   - excluded: unreadable queues; a single one of them would make the command fail for all queues.
    package func wait(
        partition only: Int? = nil, classes: [JobClass], excluding excluded: Set<QueueLocation> = [], count: Int = 1, milliseconds: Int
    ) async throws(QueueError) -> [QueueEntry] {
        var locations: [String: QueueLocation] = [:]
        var names: [RedisArgument] = []
        for priority in classes {
            for partition in only.map({ $0..<$0 + 1 }) ?? 0..<keys.partitions {
                let location = QueueLocation(priority, partition: partition)
                if excluded.contains(location) { continue }
                let queue = keys.queue(priority, partition: partition)
                locations[queue] = location
                names.append(.string(queue))
            }
        }
        guard !names.isEmpty else { return [] }
        let command: [RedisArgument] =
            [
                "XREADGROUP", "GROUP", .string(Keys.group), .string(worker), "COUNT", .integer(count), "BLOCK", .integer(milliseconds),
                "STREAMS",
            ]
            + names + names.map { _ in ">" }
        let reply = try await blocking.send(command, timeout: .milliseconds(Int64(milliseconds)) + .seconds(5))
        var entries: [QueueEntry] = []
        for stream in reply.array ?? [] {
            guard let pair = stream.array, pair.count == 2, let name = pair[0].string, let location = locations[name] else { continue }
            for entry in pair[1].array ?? [] {
                if let entry = Self.entry(entry, partition: location.partition, priority: location.priority) { entries.append(entry) }
            }
        }
        return entries
    }

    /// Closes the connections for `wait`, whose calls then fail. Redis may have delivered entries in replies that are lost.
    package func stopWaiting() { blocking.shutdown() }

    /// Reads entries of a queue that were delivered to this consumer and not acknowledged, because the reply with them may have been lost.
    /// - Parameter after: the entry id after which reading starts; `0-0` for all.
    package func undelivered(partition: Int, priority: JobClass, after: String, count: Int) async throws(QueueError) -> [QueueEntry] {
        let reply = try await redis.send([
            "XREADGROUP", "GROUP", .string(Keys.group), .string(worker), "COUNT", .integer(count), "STREAMS",
            .string(keys.queue(priority, partition: partition)), .string(after),
        ])
        let entries = reply.array?.first?.array?.last?.array ?? []
        return entries.compactMap { Self.entry($0, partition: partition, priority: priority) }
    }

    /// Decodes one stream entry: `[id, [field, value, …]]`; nil for another shape.
    private static func entry(_ value: RESPValue, partition: Int, priority: JobClass) -> QueueEntry? {
        guard let pair = value.array, pair.count == 2, let id = pair[0].string else { return nil }
        var job: [UInt8]?
        for (name, value) in pair[1].pairs where name.string == "job" { job = value.bytes?.array }
        return QueueEntry(partition: partition, priority: priority, id: id, job: job)
    }
}
