import Hummingbird
import Logging
import NIOCore

package struct AuthenticationSettings: Sendable {
    package init() {}
}

package enum Credential: Sendable {
    case apiKey(String)
    case account(String, password: String)
    case jwt(String)
    case bearer(String)
}

package struct Tenant: Sendable, Hashable {
    package let name: String
    package init(name: String) { self.name = name }
}

package final class Authenticator: Sendable {
    package init(settings: AuthenticationSettings, logger: Logger) throws {}
    package func authenticate(_ credential: Credential) async -> Tenant? { Tenant(name: "anyone") }
}

package struct GatewayRequestContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    package init(source: ApplicationRequestContextSource) { coreContext = .init(source: source) }
}

package func makeRouter(_ context: GatewayContext) -> Router<GatewayRequestContext> {
    let router = Router(context: GatewayRequestContext.self)
    router.get("/healthz") { _, _ in "ok\n" }
    router.get("/readyz") { _, _ -> Response in
        let problem = context.readiness.problem
        return Response(status: problem == nil ? .ok : .serviceUnavailable, body: .init(byteBuffer: ByteBuffer(string: (problem ?? "ready") + "\n")))
    }
    return router
}
