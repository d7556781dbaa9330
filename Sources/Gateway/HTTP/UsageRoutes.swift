import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue

/// `GET /v1/usage?from=YYYY-MM-DD&to=YYYY-MM-DD`: jobs and tokens by tenant, day and model. A tenant sees itself; an operator's key all tenants.
struct UsageRoutes: Sendable {
    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.get("usage") { request, requestContext -> Response in
            try await usage(request, tenant: requestContext.operatorRole == nil ? try requestContext.requireTenant().name : nil)
        }
    }

    /// - Parameter tenant: nil for all tenants.
    private func usage(_ request: Request, tenant: String?) async throws(HTTPErrorResponse) -> Response {
        let today = try await onQueue { () throws(QueueError) in try await context.queue.today() }
        let to = try day("to", request) ?? today
        let from = try day("from", request) ?? to - UsageDay.kept + 1
        guard from <= to else { throw HTTPErrorResponse.invalid("\"from\" is after \"to\"") }
        // Earlier days have no data, later ones have none yet.
        let first = max(from, today - UsageDay.kept)
        let last = min(to, today)
        let rows =
            first > last
            ? [] : try await onQueue { () throws(QueueError) in try await context.queue.usage(of: first...last, tenant: tenant) }
        return .json(
            [
                "object": "list", "from": .string(UsageDay.text(from)), "to": .string(UsageDay.text(to)), "data": .array(rows.map(\.json)),
            ], headers: [.cacheControl: "no-store"])
    }

    private func day(_ name: String, _ request: Request) throws(HTTPErrorResponse) -> Int? {
        guard let text = request.uri.queryParameters[Substring(name)] else { return nil }
        guard let day = UsageDay.parse(text) else { throw HTTPErrorResponse.invalid("\"\(name)\" is not a date YYYY-MM-DD from 1970") }
        return day
    }
}

/// Admits operators with their keys, and tenants as on the other routes.
struct UsageMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    let authentication: AuthenticationMiddleware

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        let token = AuthenticationMiddleware.bearer(request.headers[.authorization])
        guard let role = token.flatMap({ authentication.authenticator.operatorRole(key: $0) }) else {
            return try await authentication.handle(request, context: context, next: next)
        }
        var context = context
        context.operatorRole = role
        return try await next(request, context)
    }
}
