import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Converts every thrown error into an `HTTPErrorResponse` and counts it, so that all error responses have the same JSON form.
struct FailureMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        do { return try await answer(request, context: context, next: next) } catch {
            Refusals.count(.http, code: error.code)
            throw error
        }
    }

    /// Calls the next handler and maps its error to an `HTTPErrorResponse`.
    private func answer(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws(HTTPErrorResponse) -> Response {
        do {
            return try await next(request, context)
        } catch let failure as HTTPErrorResponse {
            throw failure
        } catch let error as HTTPError where error.status == .notFound {
            throw HTTPErrorResponse(
                .notFound, code: "not_found", "no such route: \(request.method.rawValue) \(request.uri.path.prefix(200))")
        } catch let error as any HTTPResponseError {
            throw HTTPErrorResponse(error.status, code: "invalid_request", error.status.reasonPhrase)
        } catch is CancellationError {
            throw HTTPErrorResponse.draining
        } catch {
            context.logger.error("request failed unexpectedly", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
            throw HTTPErrorResponse(.internalServerError, code: "internal", "internal error; see the gateway's log")
        }
    }
}

/// Lets pages of the listed origins use `/v1/*` (CORS, Fetch Standard, 3.2): answers their preflight requests, and permits them to read the
/// responses, errors included.
struct CORSMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    /// Headers that pages may send and read.
    private static let requestHeaders =
        "authorization, content-type, idempotency-key, last-event-id, traceparent, x-request-id, x-api-key, anthropic-version, anthropic-beta, "
        + "anthropic-dangerous-direct-browser-access"
    private static let responseHeaders = "x-sluice-job, x-request-id, request-id, x-sluice-token-count, retry-after, location"
    /// Time that a browser may remember a preflight response, in seconds.
    private static let maximumAge = "600"

    let origins: OriginRule

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        guard request.uri.path.hasPrefix("/v1/"), let origin = request.headers[.origin], origins.listsOrigin(origin) else {
            return try await next(request, context)
        }
        var response: Response
        if request.method == .options, request.headers[.accessControlRequestMethod] != nil {
            response = Response(status: .noContent)
            response.headers[.accessControlAllowMethods] = "GET, POST, DELETE"
            // The headers that the page asks for: SDKs send many of their own, and the listed origins are trusted.
            response.headers[.accessControlAllowHeaders] = request.headers[.accessControlRequestHeaders] ?? Self.requestHeaders
            response.headers[.accessControlMaxAge] = Self.maximumAge
        } else {
            do { response = try await next(request, context) } catch let failure as HTTPErrorResponse {
                response = try failure.response(from: request, context: context)
            }
            response.headers[.accessControlExposeHeaders] = Self.responseHeaders
        }
        response.headers[.accessControlAllowOrigin] = origin
        response.headers[.vary] = "Origin, Access-Control-Request-Headers"
        return response
    }
}

/// Authenticates the request's bearer key or token, or the key in `x-api-key`, sets the context's tenant, and counts the request in the tenant's quota.
struct AuthenticationMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    let authenticator: Authenticator
    let origins: OriginRule
    let shares: HTTPShares

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        // Without authentication, any page in the user's browser could send jobs to a gateway on this machine. With authentication it
        // cannot: an Authorization header requires a CORS preflight, which the gateway accepts only from listed origins.
        if authenticator.isOpen, !origins.allows(origin: request.headers[.origin], host: request.head.authority) {
            throw HTTPErrorResponse(.forbidden, code: "origin_refused", "pages of this origin are not allowed to use the gateway")
        }
        let token = Self.bearer(request.headers[.authorization]) ?? request.headers[.apiKey]
        guard let tenant = await authenticator.authenticate(.bearer(token ?? ""), from: context.address) else {
            throw HTTPErrorResponse.unauthenticated(given: token != nil)
        }
        var context = context
        context.tenant = tenant
        let share = try shares.request(of: tenant.name)
        defer { share.release() }
        context.share = share
        return try await next(request, context)
    }

    /// The token of an `Authorization: Bearer` header; nil for another scheme. The scheme is case-insensitive (RFC 9110, 11.1).
    static func bearer(_ header: String?) -> String? {
        guard let header, header.count > 7, header.prefix(7).lowercased() == "bearer " else { return nil }
        let token = header.dropFirst(7).trimmed
        return token.isEmpty ? nil : String(token)
    }
}
