/// A POST request to an upstream.
package struct HTTPRequest: Sendable {
    package var url: String
    /// Header lines `name: value`, without line ends. `Content-Type: application/json` is added.
    package var headers: [String]
    package var body: [UInt8]

    package init(url: String, headers: [String], body: [UInt8]) {
        self.url = url
        self.headers = headers
        self.body = body
    }
}

/// The status and the relevant headers of a response.
package struct HTTPResponseHead: Sendable, Hashable {
    /// Maximum size of all header lines of one exchange, including interim responses and trailers.
    static let maximumBytes = 64 * 1024

    /// Status code; 0 if the status line has none.
    package var status = 0
    /// Media type in lower case, without parameters; empty if the header is missing.
    package var contentType = ""
    /// The value of `Retry-After`, at most 1,024 bytes.
    package var retryAfter: String?
    /// From `x-request-id` or `request-id`, at most 1,024 bytes.
    package var requestID: String?

    package init(status: Int = 0, contentType: String = "", retryAfter: String? = nil, requestID: String? = nil) {
        self.status = status
        self.contentType = contentType
        self.retryAfter = retryAfter
        self.requestID = requestID
    }

    package var isSuccess: Bool { (200..<300).contains(status) }
}

/// The end of an exchange, as libcurl reported it.
package struct ExchangeOutcome: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        /// The response arrived completely.
        case complete
        /// No connection was established: name resolution, TCP, TLS or the connect timeout failed.
        case unreachable
        /// The connection was lost while in use.
        case broken
        /// The response was not HTTP or exceeded a size limit.
        case malformed
        /// The request could not be made: a fault in the configuration or in this program.
        case impossible
    }

    package var kind: Kind
    /// libcurl's error text, without network addresses: it may be shown to clients.
    package var detail = ""

    package init(kind: Kind, detail: String = "") {
        self.kind = kind
        self.detail = detail
    }
}

/// Receives the events of one exchange, on the event loop. The first three methods are called from inside libcurl and may only record what
/// happened. `exchangeProgressed` follows soon after, outside libcurl, and may do anything.
package protocol ExchangeDelegate: AnyObject {
    /// The connection is open and the request is about to be written. May be called twice if a reused connection turned out to be dead.
    func exchangeConnected()
    /// The head of the final response has arrived; interim 1xx responses are not reported. Returns false to end the exchange.
    func exchangeAnswered(_ head: HTTPResponseHead) -> Bool
    /// Part of the body has arrived. Returns false to end the exchange and close its connection.
    func exchangeReceived(_ bytes: Span<UInt8>) -> Bool
    /// Some of the above happened, or the exchange ended. In that case `outcome` is set and no further calls follow.
    func exchangeProgressed(outcome: ExchangeOutcome?)
}
