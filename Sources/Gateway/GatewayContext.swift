import JobQueue
import Logging
import NIOCore
import RedisClient

/// What every part of one gateway shares. One a process.
package final class GatewayContext: Sendable {
    package let settings: GatewaySettings
    package let queue: JobQueue
    package let feed: EventFeed
    package let authenticator: Authenticator
    /// The one loop that listening sockets, clients' sockets, Redis connections and relays live on.
    package let eventLoop: any EventLoop
    package let readiness: Readiness
    package let logger: Logger
    let errands = Errands()
    let room: LoopRoom
    let tenants: TenantLedger
    let submitted: SubmittedJobs
    let shares: HTTPShares
    let unsent: UnsentOutput
    let completions = CompletionLedger()

    package init(
        settings: GatewaySettings, queue: JobQueue, feed: EventFeed, authenticator: Authenticator, eventLoop: any EventLoop,
        readiness: Readiness, logger: Logger
    ) {
        self.settings = settings
        self.queue = queue
        self.feed = feed
        self.authenticator = authenticator
        self.eventLoop = eventLoop
        room = LoopRoom(queue.redis.executor)
        self.readiness = readiness
        self.logger = logger
        tenants = TenantLedger(maximum: settings.requestsPerTenant)
        submitted = SubmittedJobs(tenants: tenants)
        shares = HTTPShares(settings: settings)
        unsent = UnsentOutput(maximum: settings.unsentBytesPerTenant)
    }
}
