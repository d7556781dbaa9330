import Contract
import JSONCodec

/// What all dialects' requests have in common.
enum RequestRules {
    /// - Throws: `invalid_request` for a body that is no chat request, `unsupported_parameter` for what no upstream's stream can be told
    /// apart in.
    static func check(_ body: JSONObject) throws(Failure) {
        guard let model = body["model"]?.string, !model.isEmpty else { throw Failure(.invalidRequest, "the request has no \"model\"") }
        guard let messages = body["messages"]?.array, !messages.isEmpty else {
            throw Failure(.invalidRequest, "the request has no \"messages\"")
        }
        if let count = body["n"], !count.isNull, count.integer != 1 {
            throw Failure(.unsupportedParameter, "the request's \"n\" must be 1: a job has one answer")
        }
    }

    static func url(_ upstream: UpstreamConfiguration, _ path: String) -> String {
        var url = upstream.url
        while url.hasSuffix("/") { url.removeLast() }
        return url + path
    }

    /// The headers that every upstream gets.
    static func headers(of request: GenerationRequest) -> [String] { headers(of: request.jobID, traceparent: request.traceparent) }

    /// - Parameter traceparent: comes from the job's author; what is none is left out. Each request is a step of its own in the trace.
    static func headers(of id: JobID, traceparent: String?) -> [String] {
        let request = "x-request-id: \(id.rawValue)"
        guard let trace = traceparent.flatMap(TraceParent.init) else { return [request] }
        return [request, "traceparent: \(trace.child().text)"]
    }

    /// - Throws: `authentication` for a key that cannot stand in a header.
    static func key(of upstream: UpstreamConfiguration) throws(Failure) -> String? {
        guard let key = upstream.key, !key.isEmpty else { return nil }
        guard key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw Failure(.authentication, "the key of upstream \(upstream.name) holds white space or control characters")
        }
        return key
    }
}
