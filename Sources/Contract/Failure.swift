import Support

/// `failed.code`: why a job has no answer. Closed: a reader may switch over it.
package enum FailureCode: String, Sendable, CaseIterable {
    case invalidRequest = "invalid_request"
    case unsupportedParameter = "unsupported_parameter"
    case modelNotFound = "model_not_found"
    case authentication
    case permission
    case contentFiltered = "content_filtered"
    case rateLimited = "rate_limited"
    case quotaExhausted = "quota_exhausted"
    /// 503 and 529.
    case overloaded
    /// Any other 5xx.
    case upstreamError = "upstream_error"
    /// DNS, connect, TLS.
    case upstreamUnreachable = "upstream_unreachable"
    /// The connection broke.
    case upstreamDisconnected = "upstream_disconnected"
    /// It ended cleanly with neither finish reason nor end mark.
    case upstreamTruncated = "upstream_truncated"
    /// Rubbish, a redirect, an error frame without a better code.
    case upstreamProtocol = "upstream_protocol"
    case firstTokenTimeout = "first_token_timeout"
    case idleTimeout = "idle_timeout"
    case totalTimeout = "total_timeout"
    case deadlineExceeded = "deadline_exceeded"
    case outputTooLarge = "output_too_large"
    /// Crashes used up, or `on_crash` says fail.
    case workerLost = "worker_lost"
    case `internal`

    /// Whether the same job, sent again later, may succeed.
    package var isRetryable: Bool {
        switch self {
        case .rateLimited, .overloaded, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout,
            .idleTimeout, .totalTimeout, .workerLost, .internal:
            true
        case .invalidRequest, .unsupportedParameter, .modelNotFound, .authentication, .permission, .contentFiltered, .quotaExhausted,
            .upstreamProtocol, .deadlineExceeded, .outputTooLarge:
            false
        }
    }
}

/// Why a job failed, as the `failed` event tells it (its usage apart).
package struct Failure: Error, Sendable, Hashable {
    package static let maximumMessageLength = 2_000

    package var code: FailureCode
    /// For people: what was tried, on what, and what to do. Never holds a key or a prompt.
    package var message: String
    package var retryable: Bool
    /// The HTTP status that an upstream answered with.
    package var upstreamStatus: Int?

    package init(_ code: FailureCode, _ message: String, retryable: Bool? = nil, upstreamStatus: Int? = nil) {
        self.code = code
        // A character may have any number of bytes.
        self.message = String(message.cut(toBytes: 4 * Self.maximumMessageLength).prefix(Self.maximumMessageLength))
        self.retryable = retryable ?? code.isRetryable
        self.upstreamStatus = upstreamStatus
    }
}
