import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

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
    /// Background tasks that may outlive the request that started them.
    let backgroundTasks = BackgroundTasks()
    /// Runs tasks on `eventLoop`.
    let room: GatewayActor
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
        room = GatewayActor(queue.redis.executor)
        self.readiness = readiness
        self.logger = logger
        tenants = TenantLedger(maximum: settings.requestsPerTenant)
        submitted = SubmittedJobs(tenants: tenants)
        shares = HTTPShares(settings: settings)
        unsent = UnsentOutput(maximum: settings.unsentBytesPerTenant)
    }
}

extension GatewayContext {
    /// Logs a submitted job. Called once per job, after Redis has accepted it.
    func logSubmitted(_ job: Job) {
        var metadata = job.logMetadata
        metadata["class"] = "\(job.priority.rawValue)"
        metadata["model"] = job.model.map { "\($0)" }
        metadata["session"] = job.session.map { "\($0)" }
        logger.info("job submitted", metadata: metadata)
    }
}
