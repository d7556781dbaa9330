import Contract

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

    package init(failure: Failure, retryAfter: Duration? = nil, requestID: String? = nil) {
        self.failure = failure
        self.retryAfter = retryAfter
        self.requestID = requestID
    }
}

package enum UpstreamResult: Sendable, Hashable {
    /// It ended with a finish reason and (where the dialect has one) its end mark.
    case complete
    case failed(UpstreamFailure)
}
