import Contract
import Foundation
import HTTPTypes
import Hummingbird

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

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
