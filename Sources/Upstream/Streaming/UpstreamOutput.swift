import Contract

/// A piece of decoded output, in stream order.
package enum UpstreamOutput: Sendable, Hashable {
    case text(String)
    case reasoning(String)
    case reasoningMark(ReasoningMark)
    /// A complete tool call whose arguments are valid JSON.
    case toolCall(ToolCall)
    /// Token counts reported by the upstream, cumulative over this request. The last one counts.
    case usage(promptTokens: Int?, completionTokens: Int?, details: TokenDetails = TokenDetails())
    /// - Parameter stopSequence: the stop sequence that ended the answer, where the upstream reports it.
    case finished(FinishReason, stopSequence: String? = nil)
}

/// The failure of a call.
package struct UpstreamFailure: Error, Sendable, Hashable {
    package var failure: Failure
    /// Delay requested by the `Retry-After` header.
    package var retryAfter: Duration?
    /// The provider's id of the request.
    package var requestID: String?

    package init(failure: Failure, retryAfter: Duration? = nil, requestID: String? = nil) {
        self.failure = failure
        self.retryAfter = retryAfter
        self.requestID = requestID
    }
}

/// The result of a call.
package enum UpstreamResult: Sendable, Hashable {
    /// The stream ended with a finish reason and, if the dialect has one, its end mark.
    case complete
    case failed(UpstreamFailure)
}
