import Contract
import Logging

/// One upstream as the operator configured it.
package struct UpstreamConfiguration: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope, anthropic, ollama }
    package enum Prefix: String, Sendable, CaseIterable { case none, partial, prefix, `continue` }
    package var name: String
    package var kind: Kind
    package var url: String
    package var key: String?
    /// How an answer is continued from a prefix.
    package var prefix: Prefix
    /// Empty: every model.
    package var models: [String] = []
    package var aliases: [String: String] = [:]
    package var requestsPerMinute: Int?
    package var concurrency: Int?
    package var fallback: [String] = []
    package init(name: String, kind: Kind, url: String, key: String?) {
        self.name = name
        self.kind = kind
        self.url = url
        self.key = key
        prefix = kind == .dashscope ? .partial : .none
    }
}

package struct UpstreamSettings: Sendable {
    package var connectTimeout: Duration = .seconds(5)
    /// PEM file of the CAs to trust; nil: the system's.
    package var caFile: String?
    /// Idle connections kept open for reuse.
    package var connectionsKept = 256
    package var http2 = false
    package init() {}
}

/// What is asked of an upstream, in the one form all adapters translate from.
package struct GenerationRequest: Sendable {
    package var jobID: JobID
    /// The OpenAI chat-completions body of the job, `model` filled in.
    package var body: JSONObject
    /// Text that was already generated (an earlier attempt's) and is to be continued.
    package var continuation: String?
    package var traceparent: String?
    package init(jobID: JobID, body: JSONObject) {
        self.jobID = jobID
        self.body = body
    }
}

/// What a stream said, in order.
package enum UpstreamOutput: Sendable, Hashable {
    case text(String)
    case reasoning(String)
    /// Complete: accumulated over its fragments, arguments checked to be JSON.
    case toolCall(ToolCall)
    /// The upstream's own figures, cumulative over this request; the last one counts.
    case usage(promptTokens: Int?, completionTokens: Int?)
    case finished(FinishReason)
}

package struct UpstreamFailure: Error, Sendable, Hashable {
    package var failure: Failure
    /// From Retry-After.
    package var retryAfter: Duration?
    package var requestID: String?
}

package enum UpstreamResult: Sendable, Hashable {
    /// It ended with a finish reason and (where the dialect has one) its end mark.
    case complete
    case failed(UpstreamFailure)
}

/// Who is told of one call. Called on the loop, synchronously; may cancel the call from inside.
package protocol UpstreamReceiver: AnyObject {
    /// The request was sent on an open connection: connecting is over, waiting for the first token.
    func upstreamConnected()
    /// A 2xx answer's head arrived.
    func upstreamAnswered()
    /// `chunks`: how many of the provider's chunks with output the outputs came in, the estimate of tokens generated.
    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int)
    /// The last call; not made after `cancel()`.
    func upstreamEnded(_ result: UpstreamResult)
}
