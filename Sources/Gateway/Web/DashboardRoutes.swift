import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import Logging

/// `GET /dashboard` and the requests of its script: the snapshot that `sluice top` shows, the usage by tenant, the Redis servers, one job's details, and the operator's actions.
///
/// The key is sent in the Authorization header, which a page of another site cannot add: a forged cross-site request is rejected.
struct DashboardRoutes: Sendable {
    let context: GatewayContext
    private let page = WebPage.dashboard()

    init(context: GatewayContext) { self.context = context }

    func add(to router: Router<GatewayRequestContext>) {
        let isOn = context.authenticator.hasOperators
        router.get("dashboard") { [page] _, _ in
            guard isOn else { throw Self.off }
            return page.response
        }
        let group = router.group("dashboard").add(middleware: OperatorMiddleware(authenticator: context.authenticator))
        group.get("snapshot", use: snapshot)
        group.get("usage", use: usage)
        group.get("redis", use: redis)
        group.get("jobs/:id", use: job)
        group.post("jobs/:id/interrupt", use: interrupt)
        group.post("workers/:name/drain", use: drain)
        group.post("queues/:class/pause") { _, requestContext in try await self.pause(requestContext, true) }
        group.post("queues/:class/resume") { _, requestContext in try await self.pause(requestContext, false) }
    }

    static let off = HTTPErrorResponse(
        .notFound, code: "dashboard_off", "the dashboard is disabled: set SLUICE_ADMIN_KEY (or SLUICE_VIEWER_KEY) to enable it")

    private static let uncached: HTTPFields = [.cacheControl: "no-store"]

    @Sendable
    private func snapshot(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let snapshot = try await onQueue { () throws(QueueError) in try await context.queue.snapshot() }
        return .json(
            [
                "role": .string(requestContext.operatorRole?.rawValue ?? ""), "gateway": .string(context.settings.name),
                "snapshot": snapshot.json,
            ], headers: Self.uncached)
    }

    /// The Redis servers, also those that do not answer.
    @Sendable
    private func redis(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        .json(await context.queue.topology().json, headers: Self.uncached)
    }

    /// Maximum number of tenants in the table of usage.
    private static let usageTenants = 50

    /// The usage of today and yesterday, by Redis' clock, of the tenants with the most tokens.
    @Sendable
    private func usage(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (today, found) = try await onQueue { () throws(QueueError) in
            let today = try await context.queue.today()
            return (today, try await context.queue.largestUsage(of: today - 1...today, maximum: Self.usageTenants))
        }
        let tenants = found.tenants.map { days -> JSON in
            var members = JSONObject([.init(name: "tenant", value: .string(days.first?.tenant ?? ""))])
            for day in days {
                members[day.day == today ? "today" : "yesterday"] = [
                    "jobs": .integer(day.jobs), "interrupted": .integer(day.interrupted), "tokens": .integer(day.tokens),
                    "estimated_tokens": .integer(day.estimatedTokens), "saved_tokens": .integer(day.savedTokens),
                ]
            }
            return .object(members)
        }
        return .json(
            [
                "today": .string(UsageDay.text(today)), "yesterday": .string(UsageDay.text(today - 1)), "tenants": .array(tenants),
                "further_tenants": .integer(found.further),
            ], headers: Self.uncached)
    }

    @Sendable
    private func job(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        guard let id = JobID(requestContext.jobParameter) else { throw HTTPErrorResponse.unknownJob }
        let story = try await onQueue { () throws(QueueError) in try await context.queue.story(of: id) }
        guard let story else { throw HTTPErrorResponse.unknownJob }
        return .json(story.json, headers: Self.uncached)
    }

    @Sendable
    private func interrupt(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        try requestContext.requireAdmin()
        let text = requestContext.jobParameter
        var answer = InterruptAnswer(state: nil, stored: false)
        if let id = JobID(text) {
            answer = try await onQueue { () throws(QueueError) in
                try await context.queue.interrupt(id, reason: InterruptReason.userStop, owner: nil)
            }
            GatewayMetrics.interrupted(answer)
            log("operator interrupted a job", ["job": "\(id)", "stored": "\(answer.stored)"])
        }
        return .json([
            "id": .string(text), "state": .string(answer.state?.rawValue ?? "unknown"), "status": answer.stored ? "SUCCESS" : "FAILED",
        ])
    }

    @Sendable
    private func drain(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        try requestContext.requireAdmin()
        let name = requestContext.parameter("name")
        guard try await onQueue({ () throws(QueueError) in try await context.queue.drain(worker: name) }) else {
            throw HTTPErrorResponse(.notFound, code: "worker_not_found", "no such worker is running")
        }
        log("operator asked a worker to drain", ["worker": "\(name)"])
        return .json(["worker": .string(name), "drain": true])
    }

    private func pause(_ requestContext: GatewayRequestContext, _ isPaused: Bool) async throws -> Response {
        try requestContext.requireAdmin()
        guard let priority = JobClass(rawValue: requestContext.parameter("class")) else {
            throw HTTPErrorResponse(.notFound, code: "queue_not_found", "a queue is interactive, standard or batch")
        }
        let changed = try await onQueue { () throws(QueueError) in try await context.queue.pause(priority, isPaused) }
        log(isPaused ? "operator paused a queue" : "operator resumed a queue", ["class": "\(priority.rawValue)"])
        return .json(["class": .string(priority.rawValue), "paused": .bool(isPaused), "changed": .bool(changed)])
    }

    private func log(_ message: Logger.Message, _ facts: Logger.Metadata) {
        context.logger.info(message, metadata: facts)
    }
}

/// Admits operators and sets their role for the routes behind it.
struct OperatorMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    let authenticator: Authenticator
    /// Only the page's own origin is allowed, whichever origins may open a WebSocket.
    private let origins = OriginRule(allowed: nil)

    init(authenticator: Authenticator) { self.authenticator = authenticator }

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        guard authenticator.hasOperators else { throw DashboardRoutes.off }
        guard origins.allows(origin: request.headers[.origin], host: request.head.authority) else {
            throw HTTPErrorResponse(.forbidden, code: "origin_refused", "pages of this origin may not operate the deployment")
        }
        let token = AuthenticationMiddleware.bearer(request.headers[.authorization])
        guard let role = token.flatMap({ authenticator.operatorRole(key: $0) }) else {
            if token != nil { await authenticator.refused("an operator's key", from: context.address) }
            throw HTTPErrorResponse.unauthenticated(given: token != nil)
        }
        var context = context
        context.operatorRole = role
        return try await next(request, context)
    }
}

extension GatewayRequestContext {
    /// - Throws: 403 `read_only` for a viewer.
    fileprivate func requireAdmin() throws(HTTPErrorResponse) {
        guard operatorRole == .admin else {
            throw HTTPErrorResponse(.forbidden, code: "read_only", "this key is read-only", type: "permission_error")
        }
    }
}
