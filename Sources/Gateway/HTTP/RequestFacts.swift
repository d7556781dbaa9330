import Contract
import Foundation
import HTTPTypes
import Hummingbird

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The time of day, for ids and answers.
enum RequestClock {
    /// Milliseconds since 1970.
    static var milliseconds: UInt64 { UInt64(max(0, Date().timeIntervalSince1970) * 1000) }
    /// Seconds since 1970.
    static var seconds: Int { Int(milliseconds / 1000) }
}

extension HTTPField.Name {
    /// draft-ietf-httpapi-idempotency-key-header
    static let idempotencyKey = HTTPField.Name("Idempotency-Key")!
    static let traceparent = HTTPField.Name("traceparent")!
    /// HTML Living Standard, 9.2.4
    static let lastEventID = HTTPField.Name("Last-Event-ID")!
    static let job = HTTPField.Name("x-sluice-job")!
    /// Tells nginx not to hold a stream back.
    static let accelBuffering = HTTPField.Name("x-accel-buffering")!
}

extension GatewayRequestContext {
    /// The `:id` of the path. An id from elsewhere may hold what a URL must escape.
    var jobParameter: String { parameter("id") }

    func parameter(_ name: String) -> String {
        let text = parameters.get(name) ?? ""
        return text.removingPercentEncoding ?? text
    }
}

extension Request {
    /// The header of W3C Trace Context, if it is one.
    var traceparent: String? { headers[.traceparent].flatMap(TraceParent.init)?.text }
}
