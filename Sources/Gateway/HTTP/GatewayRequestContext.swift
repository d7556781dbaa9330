import Contract
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// The per-request context of the gateway's HTTP routes.
package struct GatewayRequestContext: RequestContext {
    package var coreContext: CoreRequestContextStorage
    /// The client's connection. The request is handled on its event loop.
    package let channel: any Channel
    /// The authenticated tenant. Set by `AuthenticationMiddleware`; nil on routes outside it.
    package var tenant: Tenant?
    /// The part of the tenant's quota that this request uses. Set together with `tenant`.
    var share: HTTPShare?
    /// The operator's role. Set by `OperatorMiddleware`; nil on routes outside it.
    package var operatorRole: OperatorRole?

    package init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }

    /// Parses the request's body; large bodies of a tenant are parsed one after the other.
    /// - Throws: the error of `parse`.
    func parse<Value, Failure: Error>(_ body: [UInt8], _ parse: ([UInt8]) throws(Failure) -> Value) async throws(Failure) -> Value {
        guard let share else { return try parse(body) }
        return try await share.parse(body, parse)
    }

    /// The client's IP address without the port; empty when unknown.
    var address: String { channel.remoteAddress?.ipAddress ?? "" }

    /// The authenticated tenant.
    /// - Throws: 401 on a route that lacks `AuthenticationMiddleware`, so that such a mistake cannot expose another tenant's jobs.
    func requireTenant() throws(HTTPErrorResponse) -> Tenant {
        guard let tenant else { throw HTTPErrorResponse.unauthenticated(given: false) }
        return tenant
    }
}

extension HTTPField.Name {
    /// From draft-ietf-httpapi-idempotency-key-header.
    static let idempotencyKey = HTTPField.Name("Idempotency-Key")!
    static let traceparent = HTTPField.Name("traceparent")!
    /// From the HTML Living Standard, 9.2.4.
    static let lastEventID = HTTPField.Name("Last-Event-ID")!
    /// The id of the job that answers a request.
    static let job = HTTPField.Name("x-sluice-job")!
    /// Disables response buffering in nginx.
    static let accelBuffering = HTTPField.Name("x-accel-buffering")!
}

extension GatewayRequestContext {
    /// The path's `:id`, percent-decoded: ids of other producers may contain characters that a URL must escape.
    var jobParameter: String { parameter("id") }

    /// A path parameter, percent-decoded; empty when absent.
    func parameter(_ name: String) -> String {
        let text = parameters.get(name) ?? ""
        return text.removingPercentEncoding ?? text
    }
}

extension Request {
    /// The W3C Trace Context header; nil when absent or invalid.
    var traceparent: String? { headers[.traceparent].flatMap(TraceParent.init)?.text }
}
