/// The names of all keys and channels of the contract. `{namespace.partition}` is the hash tag, so one script can use all keys of a job.
package struct Keys: Sendable, Hashable {
    package let namespace: String
    /// The number of partitions of the deployment; equal on every node.
    package let partitions: Int
    private let tags: [String]

    /// - Parameter partitions: at least 1.
    package init(namespace: String = "sluice", partitions: Int = 1) {
        self.namespace = namespace
        self.partitions = max(1, partitions)
        tags = (0..<self.partitions).map { "{\(namespace).\($0)}:" }
    }

    /// The consumer group of the queues.
    package static let group = "workers"

    package func partition(of id: String) -> Int { Partition.of(id, of: partitions) }

    /// The prefix of an id's keys. An id may state a partition out of range; its keys are valid, but no worker reads that partition.
    private func tag(_ id: String) -> String { tag(partition: partition(of: id)) }
    private func tag(partition: Int) -> String { tags.indices.contains(partition) ? tags[partition] : "{\(namespace).\(partition)}:" }

    package func queue(_ priority: JobClass, partition: Int) -> String { tag(partition: partition) + "queue:" + priority.rawValue }
    package func queues(partition: Int) -> [String] { JobClass.allCases.map { queue($0, partition: partition) } }
    package func record(_ id: JobID) -> String { tag(id.rawValue) + "job:" + id.rawValue }
    /// The key of a partition's records without the job's id.
    package func recordPrefix(partition: Int) -> String { tag(partition: partition) + "job:" }
    package func log(_ id: JobID) -> String { tag(id.rawValue) + "log:" + id.rawValue }
    /// The audio of a job's user message.
    package func audio(_ id: JobID) -> String { tag(id.rawValue) + "audio:" + id.rawValue }
    /// The output channel.
    package func out(_ id: JobID) -> String { tag(id.rawValue) + "out:" + id.rawValue }
    /// The interrupt key.
    package func interrupt(_ id: JobID) -> String { tag(id.rawValue) + "interrupt:" + id.rawValue }
    /// The channel of interrupts.
    package func cancel(partition: Int) -> String { tag(partition: partition) + "cancel" }
    /// The lease indexes of the queues. The scripts build the same names.
    package func leases(partition: Int) -> [String] { JobClass.allCases.map { tag(partition: partition) + "leases:" + $0.rawValue } }
    /// The owners with waiting entries that are sorted by tenant, of each queue. The scripts build the same names.
    package func turns(partition: Int) -> [String] { JobClass.allCases.map { tag(partition: partition) + "turns:" + $0.rawValue } }
    /// The channel that announces handed-back jobs, so that workers with free slots take them immediately instead of at the next renewal.
    package func returned(partition: Int) -> String { tag(partition: partition) + "returned" }
    /// The stream of dead letters.
    package func dead(partition: Int) -> String { tag(partition: partition) + "dead" }
    /// The set of the record keys of an owner's waiting jobs, bounded by the owner's limit. The scripts build the same name.
    package func waiting(of owner: String, partition: Int) -> String { tag(partition: partition) + "waiting:" + owner }
    /// The set of the jobs that end with a gateway. The submit script builds the same name.
    package func requests(of gateway: String, partition: Int) -> String { tag(partition: partition) + "requests:" + gateway }
    /// A stored response of the Responses API. The scripts build the same name.
    package func response(_ id: JobID) -> String { tag(id.rawValue) + "response:" + id.rawValue }
    /// The byte ledger of an owner's stored responses. The scripts build the same name.
    package func responseBytes(of owner: String, partition: Int) -> String { tag(partition: partition) + "response-bytes:" + owner }
    /// The sorted set of the jobs whose webhooks are not delivered yet, by the time of the next delivery. The scripts build the same name.
    package func webhooks(partition: Int) -> String { tag(partition: partition) + "webhooks" }
    /// The sorted set of the jobs whose webhooks failed at least once, by the time of the last failure.
    package func failingWebhooks(partition: Int) -> String { tag(partition: partition) + "webhooks-failing" }
    /// The number of webhooks that were dropped because too many waited, until a worker reads it. The scripts build the same name.
    package func droppedWebhooks(partition: Int) -> String { tag(partition: partition) + "webhooks-dropped" }
    /// The stream of webhooks that were given up.
    package func deadWebhooks(partition: Int) -> String { tag(partition: partition) + "webhooks-dead" }
    /// Time and text of the last failed delivery.
    package func webhookError(partition: Int) -> String { tag(partition: partition) + "webhook-error" }
    /// A client secret of the Realtime API, by its digest.
    package func clientSecret(_ digest: String, partition: Int) -> String { tag(partition: partition) + "secret:" + digest }
    /// The sorted set of an owner's client secrets, by their expiry.
    package func clientSecrets(of owner: String, partition: Int) -> String { tag(partition: partition) + "secrets:" + owner }
    package func session(_ id: String) -> String { tag(id) + "session:" + id }
    /// The prefix of `busySessions(of:partition:)`; the gateway's name follows.
    package func busySessionsPrefix(partition: Int) -> String { tag(partition: partition) + "sessions:" }
    /// The set of a gateway's sessions with running requests, so that other gateways can adopt them without scanning all sessions.
    package func busySessions(of gateway: String, partition: Int) -> String { busySessionsPrefix(partition: partition) + gateway }
    /// The hash with the number and bytes of an owner's sessions; see session_quota.lua.
    package func sessionQuota(of owner: String, partition: Int) -> String { tag(partition: partition) + "session-quota:" + owner }
    package func idempotency(owner: String, key: String) -> String {
        let id = owner + ":" + key
        return tag(partition: Int(Partition.crc16(id.utf8)) % partitions) + "idempotency:" + id
    }

    /// The heartbeat of a worker.
    package func worker(_ name: String) -> String { "{\(namespace)}:worker:" + name }
    /// The heartbeat of a gateway.
    package func gateway(_ name: String) -> String { "{\(namespace)}:gateway:" + name }
    /// The sorted set of worker names by their last heartbeat, so that listing workers needs no SCAN.
    package var workers: String { "{\(namespace)}:workers" }
    /// The set of the names of current and recent gateways.
    package var gateways: String { "{\(namespace)}:gateways" }
    /// The set of paused classes.
    package var paused: String { "{\(namespace)}:paused" }
    /// The lock of the worker that currently removes consumers of dead workers.
    package var sweep: String { "{\(namespace)}:sweep" }
    /// The lock of the worker that currently walks through the pending entries.
    package var walk: String { "{\(namespace)}:walk" }
    /// The depth of the queues as a worker has measured it last.
    package var depth: String { "{\(namespace)}:depth" }
    /// The channel that announces operators' commands, so that workers read them at once.
    package var control: String { "{\(namespace)}:control" }
    /// The prefix of the keys of a limit over all workers; see limit.lua. They share the hash tag of the namespace.
    package func limit(_ kind: String, _ name: String) -> String { "{\(namespace)}:limit:\(kind):" + name }
    /// The channel that announces a worker's holders of limits that were admitted, or that are the next ones.
    package func limitChanged(of worker: String) -> String { "{\(namespace)}:limit-changed:" + worker }
    /// The settings of tenants: weights and limits.
    package func tenants(partition: Int) -> String { tag(partition: partition) + "tenants" }
    /// The tokens of each tenant on a UTC day, in days since 1970. The scripts build the same name, and the next one.
    package func usage(day: Int, partition: Int) -> String { tag(partition: partition) + "usage:\(day)" }
    /// The usage of one tenant on a UTC day, by model.
    package func usage(day: Int, of tenant: String, partition: Int) -> String { usage(day: day, partition: partition) + ":" + tenant }
    /// The channel without subscribers that a wait for replicas writes to.
    package var replicated: String { "{\(namespace)}:replicated" }
    /// The key that a wait for the replicas of a cluster's shard writes, beside the data of a partition.
    package func replicated(partition: Int) -> String { tag(partition: partition) + "replicated" }
    /// A key of each partition, to find the shard that serves it. Allocates nothing.
    package func shard(partition: Int) -> String { tag(partition: partition) }
    /// A key of the nodes' data, to find the shard that serves it.
    package var nodes: String { paused }
    /// The request that a worker drains.
    package func drain(_ worker: String) -> String { "{\(namespace)}:drain:" + worker }
}

/// The three queues of a partition, in the order in which workers take from them.
package enum JobClass: String, Sendable, CaseIterable, Hashable {
    case interactive, standard, batch
}
