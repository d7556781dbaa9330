import Contract
import Logging
import NIOCore
import RedisClient

package struct QueueSettings: Sendable {
    package var keys = Keys()
    /// A worker that is not heard of for so long has lost its jobs. A beat is a third of it.
    package var lease: Duration = .seconds(15)
    /// How long record and log outlive the job.
    package var retention: Duration = .seconds(600)
    /// Waiting jobs per class.
    package var queueMaximum = 10_000
    package var logMaximum = 16 << 20
    package var deadMaximum = 10_000
    package var maximumCrashes = 3
    package init() {}
    package var beat: Duration { lease / 3 }
}

package struct SubmitOptions: Sendable {
    package var gateway = ""
    /// Jobs of the same partition that are interrupted (USER_NEW_INPUT) in the same step.
    package var supersede: [JobID] = []
    /// `Idempotency-Key`, with a digest of the body it came with.
    package var idempotency: (key: String, digest: String)?
    package init() {}
}

package enum Submission: Sendable, Equatable {
    case accepted
    /// The queue of the class holds its limit.
    case full
    /// The idempotency key was used with the same body for this job: nothing new was submitted.
    case repeated(JobID)
    /// The idempotency key was used with another body.
    case conflict
}

package struct InterruptAnswer: Sendable, Equatable {
    /// As found; nil: unknown (or another owner's).
    package var state: JobState?
    /// The intent was stored for a job that had not ended.
    package var stored: Bool
}

/// A job's record; never holds the prompt.
package struct JobRecord: Sendable, Equatable {
    package var fields: [String: String]
    package var state: JobState? { fields["state"].flatMap(JobState.init) }
    package var owner: String? { fields["owner"] }
    package var attempt: Int { fields["attempt"].flatMap { Int($0) } ?? 0 }
}

/// The producer's side of the contract.
package struct JobQueue: Sendable {
    package let redis: RedisClient
    package let settings: QueueSettings
    package var keys: Keys { settings.keys }
    package init(redis: RedisClient, settings: QueueSettings) { fatalError() }
    package func submit(_ job: Job, options: SubmitOptions) async throws(RedisError) -> Submission { fatalError() }
    /// - Parameter owner: only a job of this owner is touched (another's is unknown); nil: any.
    package func interrupt(_ id: JobID, reason: String, owner: String?) async throws(RedisError) -> InterruptAnswer { fatalError() }
    /// Writes the durable key and publishes, whatever the record says (`sluice job interrupt`).
    package func forceInterrupt(_ id: JobID, reason: String) async throws(RedisError) -> InterruptAnswer { fatalError() }
    package func record(_ id: JobID) async throws(RedisError) -> JobRecord? { fatalError() }
    package func log(_ id: JobID, after: EventID?) async throws(RedisError) -> [LoggedEvent] { fatalError() }
}

/// Follows jobs' events for a gateway: live by pub/sub, gaps filled from the log, lost terminal events found by asking. One a gateway, on its event loop.
package final class EventFeed: Sendable {
    package init(queue: JobQueue, subscriber: RedisSubscriber, eventLoop: any EventLoop, logger: Logger) { fatalError() }
    /// Follows a job. Returns when the subscription is in force, so that a job submitted after it loses nothing.
    ///
    /// `receive` runs on the event loop with one or more events, in order, without gaps or duplicates, nothing of an older attempt after a newer, nothing after a
    /// terminal event; that one ends the following by itself.
    /// - Parameters:
    ///   - after: the last event the receiver has; nil: from the beginning.
    ///   - replay: read the log first (a job that was submitted earlier); false for a job that is about to be submitted.
    package func follow(_ id: JobID, after: EventID?, replay: Bool, receive: @escaping @Sendable ([LoggedEvent]) -> Void) async throws(RedisError) -> Following { fatalError() }
    package func stop(_ following: Following) { fatalError() }
}

package struct Following: Sendable, Hashable {
    package let id: JobID
    package let number: UInt64
}
