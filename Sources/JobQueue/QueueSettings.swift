import Contract

/// What both kinds of nodes must agree on about the queue.
package struct QueueSettings: Sendable {
    /// `SLUICE_NAMESPACE` and `SLUICE_PARTITIONS`.
    package var keys = Keys()
    /// `SLUICE_LEASE`: a worker that is not heard of for so long has lost its jobs.
    package var lease: Duration = .seconds(15)
    /// `SLUICE_RETENTION`: how long record and log outlive the job.
    package var retention: Duration = .seconds(600)
    /// `SLUICE_QUEUE_MAX`: waiting jobs per class and partition, beyond which submissions are refused.
    package var queueMaximum = 10_000
    /// `SLUICE_QUEUE_MAX_PER_TENANT`: waiting jobs per owner and partition, of all classes together, beyond which the owner's submissions
    /// are refused. 0: no limit.
    package var ownerQueueMaximum = 5_000
    /// `SLUICE_QUEUE_MAX_BYTES`: bytes of job JSON per class and partition, waiting and running, beyond which submissions are refused.
    package var queueMaximumBytes = 256 << 20
    /// `SLUICE_QUEUE_MAX_BYTES_PER_TENANT`: bytes of job JSON per owner and partition, waiting and running, of all classes together, beyond
    /// which the owner's submissions are refused. 0: no limit.
    package var ownerQueueMaximumBytes = 64 << 20
    /// `SLUICE_LOG_MAX`: bytes of events per job, beyond which it fails.
    package var logMaximum = 16 << 20
    /// `SLUICE_DEAD_MAX`: dead letters kept per partition.
    package var deadMaximum = 10_000
    /// `SLUICE_DEAD_MAX_BYTES`: bytes of job JSON in a partition's dead letters; the oldest ones are deleted beyond it.
    package var deadMaximumBytes = 256 << 20
    /// `SLUICE_MAX_CRASHES`: lost workers per job, at which it is given up.
    package var maximumCrashes = 3

    package init() {}

    /// How often leases are renewed and durable interrupts read: a third of the lease.
    package var beat: Duration { lease / 3 }

    var retentionSeconds: Int { max(1, Int(retention.components.seconds)) }
    var leaseMilliseconds: Int { Int(lease.components.seconds) * 1_000 + Int(lease.components.attoseconds / 1_000_000_000_000_000) }
}
