import HTTPTypes
import Hummingbird
import NIOCore
import Observability

/// Everything that a gateway answers over plain HTTP.
/// - Parameters:
///   - models: what `GET /v1/models` lists; nil: the settings' one.
///   - metrics: Prometheus text, made at each call.
package func makeRouter(
    _ context: GatewayContext, models: [String]? = nil, metrics: @escaping @Sendable () -> String = { prometheusText() }
) -> Router<GatewayRequestContext> {
    let router = Router(context: GatewayRequestContext.self, options: .autoGenerateHeadEndpoints)
    router.add(middleware: FailureMiddleware())
    HealthRoutes(readiness: context.readiness, metrics: metrics).add(to: router)
    let chatPage = WebPage.chat(requiresKey: !context.authenticator.isOpen)
    router.get("/") { _, _ in chatPage.response }
    DashboardRoutes(context: context).add(to: router)
    let origins = OriginRule(allowed: context.settings.allowedOrigins)
    let api = router.group("v1").add(
        middleware: AuthenticationMiddleware(authenticator: context.authenticator, origins: origins, shares: context.shares))
    api.get("models") { _, _ in modelList(models ?? [context.settings.defaultModel]) }
    JobRoutes(context: context).add(to: api)
    JobEventRoute(context: context).add(to: api)
    ChatCompletionRoute(context: context).add(to: api)
    router.refuseOtherMethods()
    return router
}

extension Router<GatewayRequestContext> {
    /// A path that is there under another method is answered 405 with `Allow` (RFC 9110, 15.5.6), not 404.
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
                    var failure = HTTPFailure(
                        .methodNotAllowed, code: "method_not_allowed", "\(request.method.rawValue) is not possible here, only \(list)")
                    failure.headers[.allow] = list
                    throw failure
                }
            }
        }
    }
}

extension Request {
    /// The whole body, counted among the bytes that its tenant holds.
    /// - Throws: 413 when it is larger than `maximum` bytes, 429 when the tenant's bodies are, 400 when the client broke off.
    func collect(upTo maximum: Int, _ share: HTTPShare?) async throws(HTTPFailure) -> [UInt8] {
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > maximum { throw HTTPFailure.tooLarge(maximum) }
        do {
            var bytes: [UInt8] = []
            for try await part in body {
                guard part.readableBytes <= maximum - bytes.count else { throw HTTPFailure.tooLarge(maximum) }
                try share?.hold(part.readableBytes)
                bytes += part.readableBytesView
            }
            return bytes
        } catch let failure as HTTPFailure {
            throw failure
        } catch is RequestGuard.BodyTimeout {
            throw HTTPFailure(.requestTimeout, code: "body_timeout", "the body did not come in time")
        } catch {
            throw HTTPFailure.invalid("the body broke off")
        }
    }
}
