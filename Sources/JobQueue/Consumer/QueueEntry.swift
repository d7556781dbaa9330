import Contract
import RedisClient

/// One of the queues of a deployment: a class in a partition.
package struct QueueLocation: Sendable, Hashable {
    package let priority: JobClass
    package let partition: Int

    package init(_ priority: JobClass, partition: Int) {
        self.priority = priority
        self.partition = partition
    }
}

/// A queue entry that was delivered to a worker.
package struct QueueEntry: Sendable, Hashable {
    package let partition: Int
    package let priority: JobClass
    /// The entry's id in the queue's stream.
    package let id: String
    /// The job's JSON; nil when the entry has no field `job`.
    package let job: [UInt8]?

    package var queue: QueueLocation { QueueLocation(priority, partition: partition) }
}

/// The result of a claim.
package enum ClaimOutcome: Sendable, Equatable {
    case claimed(Claim)
    /// The claim ended the job: interrupted (nil) or failed with this code (deadline passed, too many crashes, damaged keys).
    case ended(FailureCode?)
    /// Nothing to run: the job had already ended, or another entry holds it.
    case gone
    /// Another worker holds the lease.
    case busy
}

/// A job that this worker owns until the lease expires.
package struct Claim: Sendable, Equatable {
    package let job: Job
    package let entry: QueueEntry
    /// The number of the attempt, from 1.
    package let attempt: Int
    /// Workers lost while they ran this job, in all attempts.
    package let crashes: Int
    /// The time of the claim on the Redis server's clock, in milliseconds since 1970.
    package let claimedMilliseconds: Int
    /// Usage of the earlier attempts as recorded at their last renewal; nil when none was recorded.
    package let earlierUsage: Usage?
    /// The number of the connection to Redis on which the job was claimed, or of an earlier one; see `JobConsumer.connections`.
    package let connection: Int
    /// The settings of the job's owner; nil when there are none.
    package let tenant: TenantLimits?

    package init(
        job: Job, entry: QueueEntry, attempt: Int, crashes: Int, claimedMilliseconds: Int, earlierUsage: Usage?, connection: Int = 0,
        tenant: TenantLimits? = nil
    ) {
        self.job = job
        self.entry = entry
        self.attempt = attempt
        self.crashes = crashes
        self.claimedMilliseconds = claimedMilliseconds
        self.earlierUsage = earlierUsage
        self.connection = connection
        self.tenant = tenant
    }
}

/// Progress of a running job, written to its record. Nil fields are not known yet. Times are milliseconds since 1970 on the Redis
/// server's clock.
package struct JobProgress: Sendable, Equatable {
    package var usage: Usage?
    package var upstream: String?
    package var dialledMilliseconds: Int?
    package var firstTokenMilliseconds: Int?

    package init(usage: Usage? = nil, upstream: String? = nil, dialledMilliseconds: Int? = nil, firstTokenMilliseconds: Int? = nil) {
        self.usage = usage
        self.upstream = upstream
        self.dialledMilliseconds = dialledMilliseconds
        self.firstTokenMilliseconds = firstTokenMilliseconds
    }

    /// The decimal number, or an empty string for nil, as the scripts expect it.
    static func text(_ milliseconds: Int?) -> String { milliseconds.map { String($0) } ?? "" }
}

/// One job in a renewal of leases.
package struct LeaseRenewal: Sendable {
    package let id: JobID
    package let entry: QueueEntry
    package let attempt: Int
    /// What is written to the job's record; empty when it holds that already.
    package var progress: JobProgress
    /// The id of the newest acknowledged event.
    package let written: EventID
    /// Whether to report the newest event of the log, which matters after a reconnect only.
    package var readsLog = true
    /// The score of the lease, as the last renewal reported it, see `LeaseReport`; nil if not known.
    package var leaseScore: String?

    /// Whether the lease is all that is renewed, and known well enough to do so by the index alone, see `JobConsumer.renewQuiet`.
    package var isQuiet: Bool { leaseScore != nil && !hasDetails }

    /// Whether more than the lease is renewed.
    var hasDetails: Bool { readsLog || progress != JobProgress() }

    package init(id: JobID, entry: QueueEntry, attempt: Int, progress: JobProgress = JobProgress(), written: EventID? = nil) {
        self.id = id
        self.entry = entry
        self.attempt = attempt
        self.progress = progress
        self.written = written ?? EventID(attempt: attempt, sequence: 0)
    }
}

/// The result of renewing one lease.
package enum LeaseAnswer: Sendable, Equatable {
    /// Renewed.
    case kept
    /// The job has ended, another attempt owns it or its record is missing.
    case lost
    /// Renewed, and the job has an interrupt key.
    case interrupted(Interrupt)
}

/// How far the log of a job reaches.
package struct LogState: Sendable, Equatable {
    /// The id of the newest event; nil if there is no log.
    package var newest: EventID?
}

/// What Redis holds of a job, as read by the renewal of its lease.
package struct LeaseReport: Sendable, Equatable {
    package var answer: LeaseAnswer
    /// The state of the job's log; nil if it was not read.
    package var log: LogState?
    /// The score of the job's entry in the lease index: the time at which the lease expires, ms since 1970 on the clock of Redis; or the number
    /// of a lease that jobs share. Nil if the job is lost.
    package var leaseScore: String?
}
