/// What is posted to an upstream.
struct HTTPRequest: Sendable {
    var url: String
    /// Lines `name: value`, without line ends.
    var headers: [String]
    var body: [UInt8]
}

/// What a response's head says, as far as it matters here.
struct HTTPResponseHead: Sendable, Hashable {
    /// Bytes of all header lines of one exchange, interim answers and trailers included.
    static let maximumBytes = 64 * 1024

    var status = 0
    /// In lower case, without parameters.
    var contentType = ""
    var retryAfter: String?
    var requestID: String?

    var isSuccess: Bool { (200..<300).contains(status) }
}

/// How an exchange ended, as libcurl says.
struct ExchangeOutcome: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        /// The response arrived whole.
        case complete
        /// No connection: name, TCP, TLS or the connect deadline.
        case unreachable
        /// The connection broke while it was in use.
        case broken
        /// What came was not HTTP, or more of it than is allowed.
        case malformed
        /// The request could not be made at all: a fault of the configuration or of this program.
        case impossible
    }

    var kind: Kind
    /// libcurl's words.
    var detail = ""
}

/// Who follows one exchange. The first three are called from inside libcurl: they may only take notes; `exchangeProgressed` comes soon
/// after, outside, and there everything is allowed.
protocol ExchangeDelegate: AnyObject {
    /// The connection stands and the request is about to be written. May be called twice, when a kept connection turned out to be dead.
    func exchangeConnected()
    /// The final answer's head is complete (interim 1xx are not told). False ends the exchange.
    func exchangeAnswered(_ head: HTTPResponseHead) -> Bool
    /// Bytes of the body, valid during the call only. False ends the exchange and closes its connection.
    func exchangeReceived(_ bytes: UnsafeRawBufferPointer) -> Bool
    /// Some of the above happened, or the exchange ended (then `outcome` is set, and nothing follows).
    func exchangeProgressed(outcome: ExchangeOutcome?)
}
