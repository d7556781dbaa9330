import Contract
import RedisClient
import Support

/// The numbers of waiting and running jobs in a deployment's queues.
package struct QueueDepth: Sendable, Equatable {
    /// The jobs of one class, all partitions together.
    package struct Class: Sendable, Equatable {
        /// Jobs that have not ended, waiting or running.
        package var entries = 0
        /// Jobs delivered to a worker, or handed back and not taken again.
        package var pending = 0
        /// Jobs not yet delivered to any worker.
        package var lag = 0
        /// Waiting time of the oldest undelivered job; nil when none waits.
        package var oldestWaitMilliseconds: Int?
    }

    package var classes: [JobClass: Class]
    package var deadLetters = 0

    package var entries: Int { classes.values.reduce(0) { $0.saturatingAdding($1.entries) } }
}

extension QueueDepth {
    /// The numbers in `text`: the dead letters, then for each class in the order of `JobClass.allCases` the four of `Class`, -1 for a missing
    /// waiting time.
    var text: String {
        let numbers = JobClass.allCases.map { classes[$0] ?? Class() }.flatMap {
            [$0.entries, $0.pending, $0.lag, $0.oldestWaitMilliseconds ?? -1]
        }
        return ([deadLetters] + numbers).map(String.init).joined(separator: " ")
    }

    /// - Returns: nil for anything but a `text`.
    init?(text: String) {
        let numbers = text.split(separator: " ", omittingEmptySubsequences: false).map { Int($0) ?? .min }
        guard numbers.count == 1 + 4 * JobClass.allCases.count, numbers.allSatisfy({ $0 >= -1 }) else { return nil }
        classes = [:]
        deadLetters = numbers[0].boundedCount
        for (index, name) in JobClass.allCases.enumerated() {
            let own = numbers[(1 + 4 * index)...].prefix(4).map { $0 }
            classes[name] = Class(
                entries: own[0].boundedCount, pending: own[1].boundedCount, lag: own[2].boundedCount,
                oldestWaitMilliseconds: own[3] < 0 ? nil : own[3].boundedCount)
        }
    }
}

extension JobConsumer {
    /// The depth of all queues as any worker has measured it in the last half of a renewal interval; measures it if none has. So the workers of a
    /// deployment measure twice an interval, however many they are.
    package func sharedDepth() async throws(RedisError) -> QueueDepth {
        var read = redis.makePipeline()
        read.append("GET", .string(keys.depth))
        if let text = try await redis.send(read).first?.string, let depth = QueueDepth(text: text) { return depth }
        let depth = try await depth()
        var write = redis.makePipeline()
        write.append(
            "SET", .string(keys.depth), .string(depth.text), "PX", .integer(max(1, settings.renewalInterval.wholeMilliseconds / 2)))
        // Where Redis rejects the write, each worker measures for itself.
        _ = try await redis.send(write)
        return depth
    }

    /// Reads the depth of all queues, with one script call per partition; without those of a cluster's shards that are not reachable.
    package func depth() async throws(RedisError) -> QueueDepth {
        var depth = QueueDepth(classes: Dictionary(uniqueKeysWithValues: JobClass.allCases.map { ($0, QueueDepth.Class()) }))
        for partition in 0..<keys.partitions where isReachable(partition: partition) {
            let reply = try await redis.run(
                Scripts.depth, keys: keys.queues(partition: partition) + [keys.dead(partition: partition)], arguments: [.string(Keys.group)]
            )
            // Bounded so that the sums cannot overflow.
            let values = (reply.array ?? []).compactMap { $0.integer.map { min(max($0, -1), 1 << 48) } }
            guard values.count == JobClass.allCases.count * 4 + 1 else { throw redis.misfit(reply, to: "the depth script") }
            for (index, priority) in JobClass.allCases.enumerated() {
                var found = depth.classes[priority] ?? QueueDepth.Class()
                found.entries = found.entries.saturatingAdding(values[index * 4].boundedCount)
                found.pending = found.pending.saturatingAdding(values[index * 4 + 1].boundedCount)
                found.lag = found.lag.saturatingAdding(values[index * 4 + 2].boundedCount)
                let wait = values[index * 4 + 3]
                if wait >= 0 { found.oldestWaitMilliseconds = max(found.oldestWaitMilliseconds ?? 0, wait.boundedCount) }
                depth.classes[priority] = found
            }
            depth.deadLetters = depth.deadLetters.saturatingAdding((values.last ?? 0).boundedCount)
        }
        return depth
    }
}
