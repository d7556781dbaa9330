import CCurl
import DequeModule
import Glibc
import Support

/// One HTTP exchange and its libcurl easy handle.
///
/// A handle serves only one exchange. `curl_easy_reset` of libcurl 7.88.1 (Debian 12) keeps a pointer to the last header of the previous
/// response after that header was freed; if the first header line of the next response begins with white space, it is appended to the freed
/// header. A new handle costs about 2 µs more than a reset; the multi handle and the share keep connections, TLS sessions and resolved
/// names.
package final class CurlTransfer {
    let easy: CurlEasy
    private(set) var delegate: (any ExchangeDelegate)?
    private var parser = ResponseHeadParser()
    /// Why the response's head was rejected; nil if it was not.
    private var headFault: String?
    private(set) var isConnected = false

    /// Id of the job whose connection `UpstreamSockets` may shut down; nil for none.
    private(set) var owner: String?
    /// Socket that the response is read from; -1 if none.
    var descriptor: Int32 = -1

    /// Whether the handle is in the multi handle and the transfer was not removed.
    var isActive = false
    /// Whether the transfer is in the queue of deliveries.
    fileprivate var isQueued = false
    /// Set when the exchange has ended.
    var outcome: ExchangeOutcome?
    private let deliveries: DeliveryQueue

    /// - Parameter deliveries: the transfer adds itself when there are events for the delegate.
    /// - Returns: nil if libcurl cannot allocate a handle.
    init?(deliveries: DeliveryQueue) {
        guard let easy = CurlEasy() else { return nil }
        self.easy = easy
        self.deliveries = deliveries
    }

    /// Frees the handle, which must not be in a multi handle, and releases the delegate. Only `outcome` may be read afterwards.
    func dispose() {
        delegate = nil
        easy.free()
    }

    /// Whether this exchange opened its connection, instead of reusing an idle one. Meaningful once connected.
    package var isOnNewConnection: Bool { easy.openedConnections > 0 }

    /// Sets all options of the handle. Called once.
    /// - Returns: nil on success, otherwise libcurl's reason (option refused or out of memory).
    func prepare(
        _ request: HTTPRequest, owner: String?, settings: TransportSettings, sockets: UpstreamSockets, multi: CurlMultiHandle,
        delegate: any ExchangeDelegate
    ) -> String? {
        self.delegate = delegate
        self.owner = owner
        // An empty `Expect:` keeps libcurl from waiting for "100 Continue" before it sends a body over 1 MB.
        easy.setHeaders(request.headers + ["Content-Type: \(request.contentType)", "Expect:"])
        easy.set(CURLOPT_URL, request.url)
        easy.set(CURLOPT_PROTOCOLS_STR, "http,https")
        // No proxy from the environment: it would see the key of a plain HTTP upstream, and the operator configures upstream URLs
        // explicitly.
        easy.set(CURLOPT_PROXY, "")
        easy.set(CURLOPT_USERAGENT, "sluice")
        // Compression would delay a stream. With this option libcurl also decodes the gzip, deflate and br of servers that compress
        // regardless.
        easy.set(CURLOPT_ACCEPT_ENCODING, "identity")
        easy.set(CURLOPT_NOSIGNAL, 1)
        // Cancelling a transfer during name resolution must not wait for the resolver thread.
        easy.set(CURLOPT_QUICK_EXIT, 1)
        easy.setSockets(sockets)
        easy.set(CURLOPT_TCP_NODELAY, 1)
        easy.set(CURLOPT_TCP_KEEPALIVE, 1)
        easy.set(CURLOPT_BUFFERSIZE, 4096)
        easy.set(CURLOPT_UPLOAD_BUFFERSIZE, 16 * 1024)
        easy.set(CURLOPT_HTTP_VERSION, Int(settings.http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1))
        easy.set(CURLOPT_CONNECTTIMEOUT_MS, Self.milliseconds(settings.connectTimeout))
        if let file = settings.caFile { easy.set(CURLOPT_CAINFO, file) }
        multi.shareSessions(with: easy)
        easy.set(CURLOPT_POST, 1)
        easy.setBody(request.body)
        easy.setEvents(self)
        return easy.firstError == CURLE_OK ? nil : CurlEasy.text(of: easy.firstError)
    }

    /// Makes libcurl close the connection when the transfer is removed. It always closes unfinished HTTP/1.1 connections. libcurl 7.88
    /// keeps unfinished HTTP/2 connections and never writes the RST_STREAM, so the upstream would continue generating.
    func closeConnection() { easy.set(CURLOPT_FORBID_REUSE, 1) }

    /// Shuts down the connection of a running exchange and releases the delegate. The peer sees the end of the stream at once, and data
    /// that it still sends is rejected.
    /// - Returns: The socket, which is still open; nil if the exchange is not reading from one.
    func shutDown() -> Int32? {
        guard descriptor >= 0 else { return nil }
        // This fails for a socket that `UpstreamSockets.cut` already shut down, which is harmless.
        _ = shutdown(descriptor, Int32(SHUT_RDWR))
        delegate = nil
        return descriptor
    }

    /// Pauses or resumes reading.
    /// - Returns: False if libcurl refused; the transfer then continues unchanged.
    func setPaused(_ paused: Bool) -> Bool { easy.setPaused(paused) }

    /// Converts a duration to whole milliseconds, at least 1 and at most about one day.
    private static func milliseconds(_ duration: Duration) -> Int {
        // libcurl takes 0 as its default of 300 s.
        max(1, min(duration, .seconds(86_400)).wholeMilliseconds)
    }

    // MARK: libcurl callbacks

    /// The connection is open and the request is about to be sent.
    func curlConnected() {
        isConnected = true
        delegate?.exchangeConnected()
        deliveries.append(self)
    }

    /// One header line has arrived. Returns false to end the transfer.
    ///
    /// Rejects continuation lines (RFC 9112, 5.2, obsolete). libcurl 7.88.1 appends each to the header line before it, which `realloc` may
    /// move, and uses the old memory for the next continuation. It calls this method after the first one, in time to end the transfer.
    func curlReceivedHeader(_ line: Span<UInt8>) -> Bool {
        guard line.isEmpty || (line[0] != UInt8(ascii: " ") && line[0] != UInt8(ascii: "\t")) else {
            headFault = "the response has a header line that is continued on the next line"
            return false
        }
        switch parser.line(line) {
        case .more: return true
        case .tooLarge:
            headFault = "the response's headers exceed \(HTTPResponseHead.maximumBytes) bytes"
            return false
        case .answered(let head):
            let shouldContinue = delegate?.exchangeAnswered(head) ?? false
            deliveries.append(self)
            return shouldContinue
        }
    }

    /// Part of the body has arrived. Returns false to end the transfer.
    func curlReceivedBody(_ bytes: Span<UInt8>) -> Bool {
        let shouldContinue = delegate?.exchangeReceived(bytes) ?? false
        deliveries.append(self)
        return shouldContinue
    }

    /// Records the result that libcurl reported.
    func finished(_ code: CURLcode) {
        outcome = ExchangeOutcome(kind: kind(of: code), detail: detail(of: code))
    }

    /// Records that the socket could not be watched. No further events would ever arrive for it.
    func lost(_ error: LoopError) {
        outcome = ExchangeOutcome(kind: .broken, detail: "cannot watch the socket: \(error)")
    }

    /// Describes a result in text that may be shown to clients.
    private func detail(of code: CURLcode) -> String {
        if let headFault { return headFault }
        // The error buffer is used for TLS errors only: for other errors it holds network addresses, which clients must not see.
        let text = Self.isTLSError(code) ? easy.errorText : ""
        return text.isEmpty ? CurlEasy.text(of: code) : text
    }

    private static func isTLSError(_ code: CURLcode) -> Bool {
        switch code {
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE,
            CURLE_SSL_ISSUER_ERROR:
            true
        default: false
        }
    }

    /// Classifies libcurl's result code.
    private func kind(of code: CURLcode) -> ExchangeOutcome.Kind {
        if headFault != nil { return .malformed }
        return switch code {
        case CURLE_OK: .complete
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY, CURLE_COULDNT_CONNECT, CURLE_OPERATION_TIMEDOUT,
            CURLE_SSL_CONNECT_ERROR,
            CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR,
            CURLE_SSL_ENGINE_INITFAILED, CURLE_SSL_INVALIDCERTSTATUS:
            .unreachable
        case CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_PARTIAL_FILE, CURLE_GOT_NOTHING, CURLE_HTTP2, CURLE_HTTP2_STREAM,
            CURLE_SSL_SHUTDOWN_FAILED:
            .broken
        // libcurl reports HTTP/0.9 (no HTTP at all) as an unsupported protocol, headers over its own limits as out of memory,
        // and a continuation line without a preceding header line as a bad argument.
        case CURLE_UNSUPPORTED_PROTOCOL where isConnected, CURLE_BAD_FUNCTION_ARGUMENT where isConnected, CURLE_WEIRD_SERVER_REPLY,
            CURLE_BAD_CONTENT_ENCODING,
            CURLE_OUT_OF_MEMORY, CURLE_WRITE_ERROR:
            .malformed
        default: .impossible
        }
    }
}

/// Transfers with events that were not delivered to their delegates yet, each once. Used on the loop only.
final class DeliveryQueue {
    private var transfers = Deque<CurlTransfer>()

    var isEmpty: Bool { transfers.isEmpty }

    func append(_ transfer: CurlTransfer) {
        guard !transfer.isQueued else { return }
        transfer.isQueued = true
        transfers.append(transfer)
    }

    func popFirst() -> CurlTransfer? {
        let transfer = transfers.popFirst()
        transfer?.isQueued = false
        return transfer
    }

    func removeAll() { transfers = [] }
}
