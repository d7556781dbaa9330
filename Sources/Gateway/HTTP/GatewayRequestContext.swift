import Hummingbird
import Logging
import NIOCore

/// What belongs to one HTTP request.
package struct GatewayRequestContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    /// The connection, on the event loop of which everything of the request happens.
    package let channel: any Channel
    /// Whose request it is. Set by `AuthenticationMiddleware`; only routes behind it may ask.
    package var tenant: Tenant?
    /// What the request holds of its tenant's share. Set with the tenant.
    var share: HTTPShare?
    /// What an operator may do. Set by `OperatorMiddleware`.
    package var operatorRole: OperatorRole?

    package init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// The client's address, without its port.
    var address: String { channel.remoteAddress?.ipAddress ?? "" }

    /// - Throws: 401 on a route that is not behind `AuthenticationMiddleware`: better a refusal than somebody else's job.
    func requireTenant() throws(HTTPFailure) -> Tenant {
        guard let tenant else { throw HTTPFailure.unauthenticated(given: false) }
        return tenant
    }
}
