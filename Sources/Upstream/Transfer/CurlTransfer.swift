import CCurl
import Contract
import Glibc
import Support

/// One HTTP exchange and its libcurl easy handle. C types stay inside this type and `CurlMulti`.
///
/// A handle serves only one exchange. `curl_easy_reset` of libcurl 7.88.1 (Debian 12) keeps a pointer to the last header of the previous
/// response after that header was freed; if the first header line of the next response begins with white space, it is appended to the freed
/// header. A new handle costs about 2 µs more than a reset; the multi handle and the share keep connections, TLS sessions and resolved
/// names.
final class CurlTransfer {
    let handle: UnsafeMutableRawPointer
    private var isDisposed = false
    private var headers: UnsafeMutablePointer<curl_slist>?
    /// libcurl's error buffer. Its text is more specific than the error code, for example about why a certificate was rejected.
    private let errorBuffer = UnsafeMutableBufferPointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
    private(set) var delegate: (any ExchangeDelegate)?
    private var parser = ResponseHeadParser()
    private var exceededLimit = false
    private(set) var isConnected = false

    /// Job whose connection `UpstreamSockets` may shut down; nil for none.
    private(set) var owner: JobID?
    /// Socket that the response is read from; -1 if none.
    var descriptor: Int32 = -1

    /// Whether the handle is in the multi handle and the transfer was not removed.
    var isActive = false
    /// Whether the transfer waits in the multi handle's queue of deliveries.
    var isQueued = false
    /// Set when the exchange has ended.
    var outcome: ExchangeOutcome?
    /// Called from libcurl's callbacks when there are events for the delegate.
    private let progressed: (CurlTransfer) -> Void

    /// Returns nil if libcurl cannot allocate a handle.
    init?(progressed: @escaping (CurlTransfer) -> Void) {
        guard let handle = curl_easy_init() else { return nil }
        self.handle = handle
        self.progressed = progressed
        errorBuffer.initialize(repeating: 0)
    }

    deinit {
        dispose()
        errorBuffer.deallocate()
    }

    /// Frees the handle, which must not be in a multi handle, and releases the delegate. Only `outcome` may be read afterwards.
    func dispose() {
        guard !isDisposed else { return }
        isDisposed = true
        delegate = nil
        curl_easy_cleanup(handle)
        curl_slist_free_all(headers)
        headers = nil
    }

    /// Returns the transfer that a handle belongs to.
    static func of(_ handle: UnsafeMutableRawPointer) -> CurlTransfer? {
        var pointer: UnsafeMutableRawPointer?
        guard sluice_easy_get_pointer(handle, CURLINFO_PRIVATE, &pointer) == CURLE_OK, let pointer else { return nil }
        return from(pointer)
    }

    /// Whether this exchange opened its connection, instead of reusing an idle one. Meaningful once connected.
    var isOnNewConnection: Bool {
        var count = 0
        return !isDisposed && sluice_easy_get_long(handle, CURLINFO_NUM_CONNECTS, &count) == CURLE_OK && count > 0
    }

    // Not retained: `CurlMulti` holds every transfer whose handle is in the multi handle.
    private var context: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }
    private static func from(_ context: UnsafeMutableRawPointer) -> CurlTransfer {
        Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
    }

    /// Sets all options of the handle. Called once.
    /// - Returns: nil on success, otherwise libcurl's reason (option refused or out of memory).
    func prepare(
        _ request: HTTPRequest, owner: JobID?, settings: UpstreamSettings, sockets: UpstreamSockets, share: UnsafeMutableRawPointer?,
        delegate: any ExchangeDelegate
    ) -> String? {
        self.delegate = delegate
        self.owner = owner
        // An empty `Expect:` keeps libcurl from waiting for "100 Continue" before it sends a body over 1 MB.
        for line in request.headers + ["Content-Type: application/json", "Expect:"] {
            guard let list = curl_slist_append(headers, line) else { return "libcurl could not allocate the headers" }
            headers = list
        }
        var firstError: CURLcode = CURLE_OK
        func check(_ code: CURLcode) { if firstError == CURLE_OK { firstError = code } }
        func set(_ option: CURLoption, _ value: Int) { check(sluice_easy_set_long(handle, option, value)) }
        func set(_ option: CURLoption, _ value: String) { check(value.withCString { sluice_easy_set_pointer(handle, option, $0) }) }
        func set(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) { check(sluice_easy_set_pointer(handle, option, value)) }

        errorBuffer[0] = 0
        set(CURLOPT_ERRORBUFFER, UnsafeMutableRawPointer(errorBuffer.baseAddress))
        set(CURLOPT_PRIVATE, context)
        set(CURLOPT_URL, request.url)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        // No proxy from the environment: it would see the key of a plain HTTP upstream, and the operator configures upstream URLs
        // explicitly.
        set(CURLOPT_PROXY, "")
        set(CURLOPT_USERAGENT, "sluice")
        set(CURLOPT_NOSIGNAL, 1)
        // Cancelling a transfer during name resolution must not wait for the resolver thread.
        set(CURLOPT_QUICK_EXIT, 1)
        check(sockets.install(on: handle))
        set(CURLOPT_TCP_NODELAY, 1)
        set(CURLOPT_TCP_KEEPALIVE, 1)
        set(CURLOPT_BUFFERSIZE, 4096)
        set(CURLOPT_UPLOAD_BUFFERSIZE, 16 * 1024)
        set(CURLOPT_HTTP_VERSION, Int(settings.http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1))
        set(CURLOPT_CONNECTTIMEOUT_MS, Self.milliseconds(settings.connectTimeout))
        if let file = settings.caFile { set(CURLOPT_CAINFO, file) }
        if let share { set(CURLOPT_SHARE, share) }
        set(CURLOPT_HTTPHEADER, UnsafeMutableRawPointer(headers))
        set(CURLOPT_POST, 1)
        check(sluice_easy_set_size(handle, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(request.body.count)))
        check(request.body.withUnsafeBytes { sluice_easy_set_pointer(handle, CURLOPT_COPYPOSTFIELDS, $0.baseAddress) })
        set(CURLOPT_PREREQDATA, context)
        check(
            sluice_easy_set_prerequest(handle) { context, _, _, _, _ in
                if let context { CurlTransfer.from(context).connected() }
                return CURL_PREREQFUNC_OK
            })
        set(CURLOPT_HEADERDATA, context)
        check(sluice_easy_set_data_callback(handle, CURLOPT_HEADERFUNCTION) { CurlTransfer.header($0, $1 * $2, $3) })
        set(CURLOPT_WRITEDATA, context)
        check(sluice_easy_set_data_callback(handle, CURLOPT_WRITEFUNCTION) { CurlTransfer.body($0, $1 * $2, $3) })
        return firstError == CURLE_OK ? nil : String(cString: curl_easy_strerror(firstError))
    }

    /// Makes libcurl close the connection when the transfer is removed. It always closes unfinished HTTP/1.1 connections. libcurl 7.88
    /// keeps unfinished HTTP/2 connections and never writes the RST_STREAM, so the upstream would continue generating.
    func closeConnection() { _ = sluice_easy_set_long(handle, CURLOPT_FORBID_REUSE, 1) }

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
    func setPaused(_ paused: Bool) -> Bool {
        curl_easy_pause(handle, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT) == CURLE_OK
    }

    /// Converts a duration to whole milliseconds, at least 1 and at most about one day.
    private static func milliseconds(_ duration: Duration) -> Int {
        // libcurl takes 0 as its default of 300 s.
        max(1, min(duration, .seconds(86_400)).wholeMilliseconds)
    }

    // MARK: libcurl callbacks

    /// Pre-request callback: the connection is open and the request is about to be sent.
    private func connected() {
        isConnected = true
        delegate?.exchangeConnected()
        progressed(self)
    }

    /// Header callback, called with one header line. Returns `count` to continue, anything else to end the exchange.
    private static func header(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
        guard let context else { return 0 }
        let transfer = from(context)
        switch transfer.parser.line(UnsafeRawBufferPointer(start: bytes, count: count)) {
        case .more: return count
        case .tooLarge:
            transfer.exceededLimit = true
            return 0
        case .answered(let head):
            let shouldContinue = transfer.delegate?.exchangeAnswered(head) ?? false
            transfer.progressed(transfer)
            return shouldContinue ? count : 0
        }
    }

    /// Body callback. Returns `count` to continue, anything else to end the exchange.
    private static func body(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
        guard let context else { return 0 }
        let transfer = from(context)
        let shouldContinue = transfer.delegate?.exchangeReceived(UnsafeRawBufferPointer(start: bytes, count: count)) ?? false
        transfer.progressed(transfer)
        return shouldContinue ? count : Int(CURL_WRITEFUNC_ERROR)
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
        if exceededLimit { return "the response's headers exceed \(HTTPResponseHead.maximumBytes) bytes" }
        // The error buffer is used for TLS errors only: for other errors it holds network addresses, which clients must not see.
        if Self.isTLSError(code), errorBuffer[0] != 0, let text = errorBuffer.baseAddress { return String(cString: text) }
        return String(cString: curl_easy_strerror(code))
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
        if exceededLimit { return .malformed }
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
