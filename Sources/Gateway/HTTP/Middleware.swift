import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Every answer that is no success is JSON of one form, whoever threw it.
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

    private func answer(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws(HTTPFailure) -> Response {
        do {
            return try await next(request, context)
        } catch let failure as HTTPFailure {
            throw failure
        } catch let error as HTTPError where error.status == .notFound {
            throw HTTPFailure(
                .notFound, code: "not_found", "there is nothing at \(request.method.rawValue) \(request.uri.path.prefix(200))")
        } catch let error as any HTTPResponseError {
            throw HTTPFailure(error.status, code: "invalid_request", error.status.reasonPhrase)
        } catch is CancellationError {
            throw HTTPFailure.draining
        } catch {
            context.logger.error("request failed unexpectedly", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
            throw HTTPFailure(.internalServerError, code: "internal", "the gateway failed at this; its log says more")
        }
    }
}

/// Lets through who shows a good key or token, and tells the routes behind it whose request it is.
struct AuthenticationMiddleware: RouterMiddleware {
    typealias Context = GatewayRequestContext

    let authenticator: Authenticator
    let origins: OriginRule
    let shares: HTTPShares

    func handle(
        _ request: Request, context: GatewayRequestContext, next: @concurrent (Request, GatewayRequestContext) async throws -> Response
    ) async throws -> Response {
        // Where no key is asked for, any page in the user's browser could send jobs to a gateway on this machine. A key it could not send
        // along: that takes a preflight, which nobody answers here.
        if authenticator.isOpen, !origins.allows(origin: request.headers[.origin], host: request.head.authority) {
            throw HTTPFailure(.forbidden, code: "origin_refused", "pages of this origin may not use the gateway")
        }
        let token = Self.bearer(request.headers[.authorization])
        guard let tenant = await authenticator.authenticate(.bearer(token ?? ""), from: context.address) else {
            throw HTTPFailure.unauthenticated(given: token != nil)
        }
        var context = context
        context.tenant = tenant
        let share = try shares.request(of: tenant.name)
        defer { share.release() }
        context.share = share
        return try await next(request, context)
    }

    /// The scheme counts whatever its case (RFC 9110, 11.1).
    static func bearer(_ header: String?) -> String? {
        guard let header, header.count > 7, header.prefix(7).lowercased() == "bearer " else { return nil }
        let token = header.dropFirst(7).trimmed
        return token.isEmpty ? nil : String(token)
    }
}
