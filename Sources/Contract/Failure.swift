import Support

/// The code of a `failed` event. A closed set, so readers may switch over it.
package enum FailureCode: String, Sendable, CaseIterable {
    case invalidRequest = "invalid_request"
    case unsupportedParameter = "unsupported_parameter"
    case modelNotFound = "model_not_found"
    case authentication
    case permission
    case contentFiltered = "content_filtered"
    case rateLimited = "rate_limited"
    case quotaExhausted = "quota_exhausted"
    /// HTTP status 503 or 529.
    case overloaded
    /// Any other HTTP status 5xx.
    case upstreamError = "upstream_error"
    /// DNS resolution, connect or TLS handshake failed.
    case upstreamUnreachable = "upstream_unreachable"
    /// The connection was lost during the response.
    case upstreamDisconnected = "upstream_disconnected"
    /// The response ended cleanly without a finish reason or end marker.
    case upstreamTruncated = "upstream_truncated"
    /// An unreadable response, a redirect, or an error frame without a more specific code.
    case upstreamProtocol = "upstream_protocol"
    case firstTokenTimeout = "first_token_timeout"
    case idleTimeout = "idle_timeout"
    case totalTimeout = "total_timeout"
    case deadlineExceeded = "deadline_exceeded"
    /// The user's audio could not be transcribed.
    case recognitionFailed = "recognition_failed"
    case outputTooLarge = "output_too_large"
    /// The maximum of crashes was reached, or `on_crash` is `fail`.
    case workerLost = "worker_lost"
    case `internal`

    /// Whether the same job may succeed when it is submitted again later.
    package var isRetryable: Bool {
        switch self {
        case .rateLimited, .overloaded, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout,
            .idleTimeout, .totalTimeout, .workerLost, .recognitionFailed, .internal:
            true
        case .invalidRequest, .unsupportedParameter, .modelNotFound, .authentication, .permission, .contentFiltered, .quotaExhausted,
            .upstreamProtocol, .deadlineExceeded, .outputTooLarge:
            false
        }
    }
}

/// The reason of a `failed` event, without its usage.
package struct Failure: Error, Sendable, Hashable {
    /// In characters; longer messages are cut.
    package static let maximumMessageLength = 2_000

    package var code: FailureCode
    /// A readable message: what was tried, on what, and what to do. Never contains a key or a prompt.
    package var message: String
    package var retryable: Bool
    /// The HTTP status of the upstream's response, if there was one.
    package var upstreamStatus: Int?

    package init(_ code: FailureCode, _ message: String, retryable: Bool? = nil, upstreamStatus: Int? = nil) {
        self.code = code
        // A character may have any number of bytes, so the bytes are limited first.
        self.message = String(message.cut(toBytes: 4 * Self.maximumMessageLength).prefix(Self.maximumMessageLength))
        self.retryable = retryable ?? code.isRetryable
        self.upstreamStatus = upstreamStatus
    }
}
