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

extension JobConsumer {
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
