/// Every key and channel of the contract, in one place. `{ns.p}` is the hash tag, so one script can touch all of a job's keys.
package struct Keys: Sendable, Hashable {
    package let namespace: String
    /// How many partitions the deployment has; the same on every node.
    package let partitions: Int
    private let tags: [String]

    /// - Parameter partitions: at least 1.
    package init(namespace: String = "sluice", partitions: Int = 1) {
        self.namespace = namespace
        self.partitions = max(1, partitions)
        tags = (0..<self.partitions).map { "{\(namespace).\($0)}:" }
    }

    package static let group = "workers"

    package func partition(of id: String) -> Int { Partition.of(id, of: partitions) }

    /// A partition that an id states beyond those there are gets its keys all the same: then nobody is there to read them.
    private func tag(_ id: String) -> String { tag(partition: partition(of: id)) }
    private func tag(partition: Int) -> String { tags.indices.contains(partition) ? tags[partition] : "{\(namespace).\(partition)}:" }

    package func queue(_ priority: JobClass, partition: Int) -> String { tag(partition: partition) + "queue:" + priority.rawValue }
    package func queues(partition: Int) -> [String] { JobClass.allCases.map { queue($0, partition: partition) } }
    package func record(_ id: JobID) -> String { tag(id.rawValue) + "job:" + id.rawValue }
    package func log(_ id: JobID) -> String { tag(id.rawValue) + "log:" + id.rawValue }
    package func out(_ id: JobID) -> String { tag(id.rawValue) + "out:" + id.rawValue }
    package func interrupt(_ id: JobID) -> String { tag(id.rawValue) + "interrupt:" + id.rawValue }
    package func cancel(partition: Int) -> String { tag(partition: partition) + "cancel" }
    /// Told when jobs were handed back, so that workers with room look at once instead of at their next beat.
    package func returned(partition: Int) -> String { tag(partition: partition) + "returned" }
    package func dead(partition: Int) -> String { tag(partition: partition) + "dead" }
    /// Set of the keys of an owner's waiting jobs' records: as long as its limit at most. Named by the submit script in the same way.
    package func waiting(of owner: String, partition: Int) -> String { tag(partition: partition) + "waiting:" + owner }
    /// Set of the jobs that end with a gateway. Named by the submit script in the same way.
    package func requests(of gateway: String, partition: Int) -> String { tag(partition: partition) + "requests:" + gateway }
    package func session(_ id: String) -> String { tag(id) + "session:" + id }
    package func idempotency(owner: String, key: String) -> String {
        let id = owner + ":" + key
        return tag(partition: Int(Partition.crc16(id.utf8)) % partitions) + "idempotency:" + id
    }

    package func worker(_ name: String) -> String { "{\(namespace)}:worker:" + name }
    package func gateway(_ name: String) -> String { "{\(namespace)}:gateway:" + name }
    /// Sorted set of the workers' names by their last beat, so that nobody looks through all keys for them.
    package var workers: String { "{\(namespace)}:workers" }
    /// Set of the gateways that are, or lately were, there.
    package var gateways: String { "{\(namespace)}:gateways" }
    package var paused: String { "{\(namespace)}:paused" }
    /// Held by the worker whose turn it is to look for consumers of workers that died.
    package var sweep: String { "{\(namespace)}:sweep" }
    package func drain(_ worker: String) -> String { "{\(namespace)}:drain:" + worker }
}

/// The three queues of a partition, in the order in which workers take from them.
package enum JobClass: String, Sendable, CaseIterable, Hashable {
    case interactive, standard, batch
}
