import HTTPTypes
import Hummingbird
import NIOCore
import Observability

/// Creates the router of all the gateway's HTTP routes, except the WebSocket path.
/// - Parameters:
///   - models: the models that `GET /v1/models` lists beside those of the workers; nil for the default model of the settings.
///   - metrics: returns the current metrics as Prometheus text.
package func makeRouter(
    _ context: GatewayContext, models: [String]? = nil, metrics: @escaping @Sendable () -> String = { prometheusText() }
) -> Router<GatewayRequestContext> {
    let router = Router(context: GatewayRequestContext.self, options: .autoGenerateHeadEndpoints)
    let origins = OriginRule(allowed: context.settings.allowedOrigins)
    router.add(middleware: CORSMiddleware(origins: origins))
    router.add(middleware: FailureMiddleware())
    HealthRoutes(readiness: context.readiness, metrics: metrics).add(to: router)
    let chatPage = WebPage.chat(requiresKey: !context.authenticator.isOpen, recognizes: context.settings.recognizes)
    router.get("/") { _, _ in chatPage.response }
    DashboardRoutes(context: context).add(to: router)
    let api = router.group("v1").add(
        middleware: AuthenticationMiddleware(authenticator: context.authenticator, origins: origins, shares: context.shares))
    ModelRoutes(context: context, own: models ?? [context.settings.defaultModel]).add(to: api)
    JobRoutes(context: context).add(to: api)
    JobEventRoute(context: context).add(to: api)
    ChatCompletionRoute(context: context).add(to: api)
    MessagesRoute(context: context).add(to: api)
    ResponsesRoute(context: context).add(to: api)
    ClientSecretRoute(context: context).add(to: api)
    let usage = UsageMiddleware(
        authentication: AuthenticationMiddleware(authenticator: context.authenticator, origins: origins, shares: context.shares))
    UsageRoutes(context: context).add(to: router.group("v1").add(middleware: usage))
    router.refuseOtherMethods()
    return router
}

extension Router<GatewayRequestContext> {
    /// Adds routes that respond 405 with `Allow` (RFC 9110, 15.5.6) to the other methods of every existing path. Call it last.
    fileprivate func refuseOtherMethods() {
        let all: [HTTPRequest.Method] = [.get, .head, .post, .put, .patch, .delete, .options]
        let paths = Dictionary(grouping: routes, by: { $0.path.description }).values
        for routes in paths {
            guard let path = routes.first?.path else { continue }
            var allowed = routes.map(\.method)
            if allowed.contains(.get) { allowed.append(.head) }
            let list = allowed.map(\.rawValue).joined(separator: ", ")
            for method in all where !allowed.contains(method) {
                on(path, method: method) { request, _ -> Response in
                    var failure = HTTPErrorResponse(
                        .methodNotAllowed, code: "method_not_allowed", "\(request.method.rawValue) is not allowed here; allowed: \(list)")
                    failure.headers[.allow] = list
                    throw failure
                }
            }
        }
    }
}

extension Request {
    /// Reads the whole body and counts its bytes in the tenant's quota.
    /// - Parameter maximum: maximum size, in bytes.
    /// - Throws: 415 when it is compressed, 413 when the body is larger than `maximum`, 429 when the tenant's bodies exceed their quota, 408 when it is not received
    ///   in time, 400 when the client aborts it.
    func collect(upTo maximum: Int, _ share: HTTPShare?) async throws(HTTPErrorResponse) -> [UInt8] {
        if let coding = headers[.contentEncoding], coding.lowercased() != "identity" { throw HTTPErrorResponse.compressed }
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > maximum { throw HTTPErrorResponse.tooLarge(maximum) }
        do {
            var bytes: [UInt8] = []
            for try await part in body {
                guard part.readableBytes <= maximum - bytes.count else { throw HTTPErrorResponse.tooLarge(maximum) }
                try share?.hold(part.readableBytes)
                bytes += part.readableBytesView
            }
            return bytes
        } catch let failure as HTTPErrorResponse {
            throw failure
        } catch is RequestGuard.BodyTimeout {
            throw HTTPErrorResponse(.requestTimeout, code: "body_timeout", "the body was not received in time")
        } catch {
            throw HTTPErrorResponse.invalid("the body ended before it was complete")
        }
    }
}
