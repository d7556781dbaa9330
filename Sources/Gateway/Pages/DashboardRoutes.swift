import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import RedisClient

/// The operator's page and what it asks: the snapshot that `sluice top` shows, a job's story, and the same three actions.
///
/// The key comes in the Authorization header, which no other site's page can send along: a forged request from there carries none and is
/// refused.
struct DashboardRoutes: Sendable {
    let context: GatewayContext
    private let page = DashboardPage.response

    init(context: GatewayContext) { self.context = context }

    func add(to router: Router<GatewayRequestContext>) {
        let isOn = context.authenticator.hasOperators
        router.get("dashboard") { [page] _, _ in
            guard isOn else { throw Self.off }
            return page
        }
        let group = router.group("dashboard").add(middleware: OperatorMiddleware(authenticator: context.authenticator))
        group.get("snapshot", use: snapshot)
        group.get("jobs/:id", use: job)
        group.post("jobs/:id/interrupt", use: interrupt)
        group.post("workers/:name/drain", use: drain)
        group.post("queues/:class/pause") { _, requestContext in try await self.pause(requestContext, true) }
        group.post("queues/:class/resume") { _, requestContext in try await self.pause(requestContext, false) }
    }

    static let off = HTTPFailure(
        .notFound, code: "dashboard_off", "the dashboard is off: SLUICE_ADMIN_KEY (or SLUICE_VIEWER_KEY) turns it on")

    private static let fresh: HTTPFields = [.cacheControl: "no-store"]

    @Sendable
    private func snapshot(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let snapshot = try await askingRedis { () throws(RedisError) in try await context.queue.snapshot() }
        return .json(
            [
                "role": .string(requestContext.operatorRole?.rawValue ?? ""), "gateway": .string(context.settings.name),
                "snapshot": snapshot.json,
            ], headers: Self.fresh)
    }

    @Sendable
    private func job(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        guard let id = JobID(requestContext.jobParameter) else { throw HTTPFailure.unknownJob }
        let story = try await askingRedis { () throws(RedisError) in try await context.queue.story(of: id) }
        guard let story else { throw HTTPFailure.unknownJob }
        return .json(story.json, headers: Self.fresh)
    }

    @Sendable
    private func interrupt(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        try requestContext.requireAdmin()
        let text = requestContext.jobParameter
        var answer = InterruptAnswer(state: nil, stored: false)
        if let id = JobID(text) {
            answer = try await askingRedis { () throws(RedisError) in
                try await context.queue.interrupt(id, reason: InterruptReason.userStop, owner: nil)
            }
            GatewayMetrics.interrupted(answer)
            tell("operator interrupted a job", ["job": "\(id)", "stored": "\(answer.stored)"])
        }
        return .json([
            "id": .string(text), "state": .string(answer.state?.rawValue ?? "unknown"), "status": answer.stored ? "SUCCESS" : "FAILED",
        ])
    }

    @Sendable
    private func drain(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        try requestContext.requireAdmin()
        let name = requestContext.parameter("name")
        guard try await askingRedis({ () throws(RedisError) in try await context.queue.drain(worker: name) }) else {
            throw HTTPFailure(.notFound, code: "worker_not_found", "no such worker is running")
        }
        tell("operator asked a worker to drain", ["worker": "\(name)"])
        return .json(["worker": .string(name), "drain": true])
    }

    private func pause(_ requestContext: GatewayRequestContext, _ isPaused: Bool) async throws -> Response {
        try requestContext.requireAdmin()
        guard let priority = JobClass(rawValue: requestContext.parameter("class")) else {
            throw HTTPFailure(.notFound, code: "queue_not_found", "a queue is interactive, standard or batch")
        }
        let changed = try await askingRedis { () throws(RedisError) in try await context.queue.pause(priority, isPaused) }
        tell(isPaused ? "operator paused a queue" : "operator resumed a queue", ["class": "\(priority.rawValue)"])
        return .json(["class": .string(priority.rawValue), "paused": .bool(isPaused), "changed": .bool(changed)])
    }

    private func tell(_ message: Logger.Message, _ facts: Logger.Metadata) {
        context.logger.info(message, metadata: facts)
    }
}

/// Lets operators through and tells the routes behind it what they may do.
struct OperatorMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    let authenticator: Authenticator
    /// The page's own host only, whatever other origins may open a WebSocket.
    private let origins = OriginRule(allowed: nil)

    init(authenticator: Authenticator) { self.authenticator = authenticator }

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        guard authenticator.hasOperators else { throw DashboardRoutes.off }
        guard origins.allows(origin: request.headers[.origin], host: request.head.authority) else {
            throw HTTPFailure(.forbidden, code: "origin_refused", "pages of this origin may not operate the deployment")
        }
        let token = AuthenticationMiddleware.bearer(request.headers[.authorization])
        guard let role = token.flatMap({ authenticator.operatorRole(key: $0) }) else {
            if token != nil { await authenticator.refused("an operator's key", from: context.address) }
            throw HTTPFailure.unauthenticated(given: token != nil)
        }
        var context = context
        context.operatorRole = role
        return try await next(request, context)
    }
}

extension GatewayRequestContext {
    /// - Throws: 403 for those who may only look.
    fileprivate func requireAdmin() throws(HTTPFailure) {
        guard operatorRole == .admin else {
            throw HTTPFailure(.forbidden, code: "read_only", "this key may look and not act", type: "permission_error")
        }
    }
}
