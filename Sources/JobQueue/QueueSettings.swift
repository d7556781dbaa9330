import Contract
import Support

/// Settings of the queue. Gateways and workers of a deployment must use the same values.
package struct QueueSettings: Sendable {
    /// `SLUICE_NAMESPACE` and `SLUICE_PARTITIONS`.
    package var keys = Keys()
    /// `SLUICE_LEASE`: time without a renewal after which a worker loses its jobs.
    package var lease: Duration = .seconds(15)
    /// `SLUICE_RETENTION`: time for which record and log are kept after the job has ended.
    package var retention: Duration = .seconds(600)
    /// `SLUICE_QUEUE_MAX`: maximum of waiting jobs per class and partition. Further submissions are refused.
    package var queueMaximum = 10_000
    /// `SLUICE_QUEUE_MAX_PER_TENANT`: maximum of waiting jobs per owner and partition, all classes together. Further submissions of the
    /// owner are refused. 0: no limit.
    package var ownerQueueMaximum = 5_000
    /// `SLUICE_QUEUE_MAX_BYTES`: maximum of job JSON per class and partition, waiting and running, in bytes. Further submissions are
    /// refused.
    package var queueMaximumBytes = 256 << 20
    /// `SLUICE_QUEUE_MAX_BYTES_PER_TENANT`: maximum of job JSON per owner and partition, waiting and running, all classes together, in
    /// bytes. Further submissions of the owner are refused. 0: no limit.
    package var ownerQueueMaximumBytes = 64 << 20
    /// `SLUICE_LOG_MAX`: maximum of event JSON per job, in bytes. A job that exceeds it fails.
    package var logMaximum = 16 << 20
    /// `SLUICE_DEAD_MAX`: maximum number of dead letters per partition.
    package var deadMaximum = 10_000
    /// `SLUICE_DEAD_MAX_BYTES`: maximum of job JSON in a partition's dead letters, in bytes. The oldest ones are deleted beyond it.
    package var deadMaximumBytes = 256 << 20
    /// `SLUICE_MAX_CRASHES`: number of lost workers per job at which the job fails.
    package var maximumCrashes = 3

    package init() {}

    /// Interval at which leases are renewed and interrupt keys are read: a third of the lease.
    package var renewalInterval: Duration { lease / 3 }

    var retentionSeconds: Int { max(1, retention.wholeSeconds) }
    var leaseMilliseconds: Int { lease.wholeMilliseconds }
}
