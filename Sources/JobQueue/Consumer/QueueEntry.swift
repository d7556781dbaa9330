import Contract
import RedisClient

/// An entry of a queue, delivered to a worker.
package struct QueueEntry: Sendable, Hashable {
    package let partition: Int
    package let priority: JobClass
    /// The entry's id in the queue's stream.
    package let id: String
    /// The job's JSON; nil when the entry has no field `job`.
    package let job: [UInt8]?
}

/// What a claim came to.
package enum ClaimOutcome: Sendable, Equatable {
    case claimed(Claim)
    /// It ended by the claim: interrupted (nil), or failed with a code (too late, given up).
    case ended(FailureCode?)
    /// There is nothing to run: it had ended, or another entry has the job.
    case gone
    /// Another worker holds its lease.
    case busy
}

/// A job that this worker owns until its lease runs out.
package struct Claim: Sendable, Equatable {
    package let job: Job
    package let entry: QueueEntry
    /// 1 for the first worker that runs it.
    package let attempt: Int
    /// Workers lost with it so far.
    package let crashes: Int
    /// Redis' clock at the claim, milliseconds since 1970.
    package let claimedMilliseconds: Int
    /// What earlier attempts cost, as far as it was noted.
    package let earlierUsage: Usage?

    package init(job: Job, entry: QueueEntry, attempt: Int, crashes: Int, claimedMilliseconds: Int, earlierUsage: Usage?) {
        self.job = job
        self.entry = entry
        self.attempt = attempt
        self.crashes = crashes
        self.claimedMilliseconds = claimedMilliseconds
        self.earlierUsage = earlierUsage
    }
}

/// How far a running job is, for its record. Nil: not known yet. Times in milliseconds since 1970 by Redis' clock.
package struct JobProgress: Sendable {
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

    static func text(_ milliseconds: Int?) -> String { milliseconds.map { String($0) } ?? "" }
}

/// One job's line in a renewal of leases.
package struct LeaseRenewal: Sendable {
    package let id: JobID
    package let entry: QueueEntry
    package let attempt: Int
    package let progress: JobProgress

    package init(id: JobID, entry: QueueEntry, attempt: Int, progress: JobProgress = JobProgress()) {
        self.id = id
        self.entry = entry
        self.attempt = attempt
        self.progress = progress
    }
}

package enum LeaseAnswer: Sendable, Equatable {
    case kept
    case lost
    case interrupted(Interrupt)
}
