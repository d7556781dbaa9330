import Contract
import JSONCodec

/// Checks, URLs and headers shared by the requests of all dialects.
enum RequestRules {
    /// Checks the members that every dialect requires.
    /// - Throws: `invalid_request` if `model` or `messages` is missing, `unsupported_parameter` if `n` is not 1 or for output that events do
    ///   not carry: log probabilities, token ids, audio.
    static func check(_ body: JSONObject) throws(Failure) {
        guard let model = body["model"]?.string, !model.isEmpty else { throw Failure(.invalidRequest, "the request has no \"model\"") }
        guard let messages = body["messages"]?.array, !messages.isEmpty else {
            throw Failure(.invalidRequest, "the request has no \"messages\"")
        }
        if let count = body["n"], !count.isNull, count.integer != 1 {
            throw Failure(.unsupportedParameter, "the request's \"n\" must be 1: a job has one answer")
        }
        for name in ["logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "audio"] {
            guard let value = body[name], !value.isNull, value != false, value.double != 0 else { continue }
            throw Failure(
                .unsupportedParameter, "the request's \"\(name)\" is not supported: answers consist of text, reasoning and tool calls")
        }
        if let value = body["modalities"], !value.isNull, value != ["text"], value != [] {
            throw Failure(.unsupportedParameter, "the request's \"modalities\" must be [\"text\"]: answers consist of text")
        }
    }

    /// Joins an upstream's base URL and a path.
    static func url(_ upstream: UpstreamConfiguration, _ path: String) -> String {
        var url = upstream.url
        while url.hasSuffix("/") { url.removeLast() }
        return url + path
    }

    /// The headers sent with every generation request.
    static func headers(of request: GenerationRequest) -> [String] { headers(of: request.jobID, traceparent: request.traceparent) }

    /// - Parameter traceparent: Trace context from the client; ignored if invalid. Every upstream request gets its own span id.
    static func headers(of id: JobID, traceparent: String?) -> [String] {
        let request = "x-request-id: \(id.rawValue)"
        guard let trace = traceparent.flatMap(TraceParent.init) else { return [request] }
        return [request, "traceparent: \(trace.child().text)"]
    }

    /// Returns the upstream's key, nil if it has none.
    /// - Throws: `authentication` for a key that is not a valid header value.
    static func key(of upstream: UpstreamConfiguration) throws(Failure) -> String? {
        guard let key = upstream.key, !key.isEmpty else { return nil }
        guard UpstreamConfiguration.isSendable(key: key) else {
            throw Failure(
                .authentication, "the key of upstream \(upstream.name) contains characters that HTTP headers do not allow; correct it")
        }
        return key
    }
}
