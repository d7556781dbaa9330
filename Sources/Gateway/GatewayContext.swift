import Contract
import JobQueue
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// The settings, connections and registries that all parts of a gateway share. One instance per process.
package final class GatewayContext: Sendable {
    package let settings: GatewaySettings
    package let queue: JobProducer
    /// Delivers the events of the jobs that this gateway relays.
    package let feed: EventFeed
    package let authenticator: Authenticator
    /// The event loop of the listener, client sockets, Redis connections and relays.
    package let eventLoop: any EventLoop
    package let readiness: Readiness
    package let logger: Logger
    /// Starts tasks on `eventLoop` and in the background.
    let backgroundTasks: BackgroundTasks
    /// Running requests per tenant.
    let tenants: TenantLedger
    /// Jobs submitted over HTTP that count against their tenants' limits.
    let submitted: SubmittedJobs
    /// HTTP requests, event streams and body bytes per tenant.
    let shares: HTTPShares
    /// Unsent output bytes per tenant.
    let unsent: UnsentOutput
    /// Chat completions that this gateway relays now.
    let completions = CompletionLedger()

    package init(
        settings: GatewaySettings, queue: JobProducer, feed: EventFeed, authenticator: Authenticator, eventLoop: any EventLoop,
        readiness: Readiness, logger: Logger
    ) {
        self.settings = settings
        self.queue = queue
        self.feed = feed
        self.authenticator = authenticator
        self.eventLoop = eventLoop
        backgroundTasks = BackgroundTasks(eventLoop: eventLoop, executor: queue.executor)
        self.readiness = readiness
        self.logger = logger
        tenants = TenantLedger(maximum: settings.requestsPerTenant)
        submitted = SubmittedJobs(tenants: tenants)
        shares = HTTPShares(settings: settings)
        unsent = UnsentOutput(maximum: settings.unsentBytesPerTenant)
    }
}

extension GatewayContext {
    /// Submits a job and counts the outcome. Repeats the submission while Redis does not answer; a job whose state then is unknown is revoked
    /// in the background.
    /// - Parameter saveSession: see `JobProducer.submit(_:options:repeating:saveSession:ifUnknown:)`.
    /// - Throws: as that.
    func submit(
        _ job: Job, options: SubmitOptions, repeating retry: RetryPolicy, saveSession: () -> Bool = { false }
    ) async throws(QueueError) -> Submission {
        do {
            let submission = try await queue.submit(job, options: options, repeating: retry, saveSession: saveSession) {
                backgroundTasks.start { [queue, id = job.id] in await queue.revoke(id) }
            }
            GatewayMetrics.submitted(submission)
            readiness.writes.record(nil)
            return submission
        } catch {
            readiness.writes.record(error)
            GatewayMetrics.submitted(nil)
            throw error
        }
    }

    /// Logs a submitted job. Called once per job, after Redis has accepted it.
    func logSubmitted(_ job: Job) {
        var metadata = job.logMetadata
        metadata["class"] = "\(job.priority.rawValue)"
        metadata["model"] = job.model.map { "\($0)" }
        metadata["session"] = job.session.map { "\($0)" }
        logger.info("job submitted", metadata: metadata)
    }
}

/// The readiness of a gateway for new clients, with the reason when it is not ready. Thread-safe.
package final class Readiness: Sendable {
    private let isDrainingBox = NIOLockedValueBox(false)
    private let isRedisReachable: @Sendable () -> Bool
    private let isSubscriptionAlive: @Sendable () -> Bool
    /// Whether Redis accepts writes: heartbeats and submissions.
    let writes = WriteHealth()

    package init(isRedisReachable: @escaping @Sendable () -> Bool, isSubscriptionAlive: @escaping @Sendable () -> Bool) {
        self.isRedisReachable = isRedisReachable
        self.isSubscriptionAlive = isSubscriptionAlive
    }

    /// True from the start of a drain; never reset.
    package var isDraining: Bool { isDrainingBox.withLockedValue { $0 } }
    package func startDraining() { isDrainingBox.withLockedValue { $0 = true } }

    /// The reason why the gateway is not ready; nil when it is.
    package var problem: String? {
        if isDraining { return "draining" }
        if !isRedisReachable() { return "Redis is not reachable" }
        if !isSubscriptionAlive() { return "the subscription to Redis is not alive" }
        return writes.problem
    }
}
