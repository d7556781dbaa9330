import CCurl
import Contract
import Glibc

/// One exchange and its easy handle of libcurl. A door to C: beyond it only Swift values.
///
/// A handle serves one exchange only. `curl_easy_reset` of libcurl 7.88.1 (Debian 12) keeps a pointer to the previous response's last
/// header, which is freed by then; a next response whose first header line begins with white space is appended to it. Making and freeing a
/// handle costs about 2 µs more than a reset; connections, TLS sessions and resolved names are kept by the multi handle and the share.
final class CurlTransfer {
    let handle: UnsafeMutableRawPointer
    private var isDisposed = false
    private var headers: UnsafeMutablePointer<curl_slist>?
    /// libcurl's own words on the last fault, which say more than its code: which of a certificate's many faults it was.
    private let words = UnsafeMutableBufferPointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
    private(set) var delegate: (any ExchangeDelegate)?
    private var parser = ResponseHeadParser()
    private var exceededLimit = false
    private(set) var isConnected = false

    /// Whose connection `UpstreamSockets` may cut; nil: nobody's.
    private(set) var owner: JobID?
    /// The connection that the answer is read from; -1: none at the moment.
    var descriptor: Int32 = -1

    /// In the multi handle, and somebody's.
    var isActive = false
    /// Waits in the multi's queue of transfers whose delegates are to be told.
    var isQueued = false
    var outcome: ExchangeOutcome?
    /// Called from libcurl when the delegate has something to be told.
    private let progressed: (CurlTransfer) -> Void

    /// Nil when there is no memory for a handle.
    init?(progressed: @escaping (CurlTransfer) -> Void) {
        guard let handle = curl_easy_init() else { return nil }
        self.handle = handle
        self.progressed = progressed
        words.initialize(repeating: 0)
    }

    deinit {
        dispose()
        words.deallocate()
    }

    /// Frees the handle, which must not be in a multi handle, and forgets the delegate. Nothing but the outcome is left to be asked for.
    func dispose() {
        guard !isDisposed else { return }
        isDisposed = true
        delegate = nil
        curl_easy_cleanup(handle)
        curl_slist_free_all(headers)
        headers = nil
    }

    /// The transfer that a handle belongs to.
    static func of(_ handle: UnsafeMutableRawPointer) -> CurlTransfer? {
        var pointer: UnsafeMutableRawPointer?
        guard sluice_easy_get_pointer(handle, CURLINFO_PRIVATE, &pointer) == CURLE_OK, let pointer else { return nil }
        return from(pointer)
    }

    /// Of the exchange that is connected: its connection was made for it, not left over from an earlier one.
    var isOnNewConnection: Bool {
        var count = 0
        return !isDisposed && sluice_easy_get_long(handle, CURLINFO_NUM_CONNECTS, &count) == CURLE_OK && count > 0
    }

    // Not retained: `CurlMulti` holds every transfer whose handle is in the multi handle.
    private var context: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }
    private static func from(_ context: UnsafeMutableRawPointer) -> CurlTransfer {
        Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
    }

    /// Makes the handle ready for its request; called once.
    /// - Returns: nil when done, else libcurl's reason (an option refused, no memory).
    func prepare(
        _ request: HTTPRequest, owner: JobID?, settings: UpstreamSettings, sockets: UpstreamSockets, share: UnsafeMutableRawPointer?,
        delegate: any ExchangeDelegate
    ) -> String? {
        self.delegate = delegate
        self.owner = owner
        // Without `Expect:` libcurl would wait for a 100 before it sends a body over 1 MB.
        for line in request.headers + ["Content-Type: application/json", "Expect:"] {
            guard let list = curl_slist_append(headers, line) else { return "no memory for the headers" }
            headers = list
        }
        var fault: CURLcode = CURLE_OK
        func check(_ code: CURLcode) { if fault == CURLE_OK { fault = code } }
        func set(_ option: CURLoption, _ value: Int) { check(sluice_easy_set_long(handle, option, value)) }
        func set(_ option: CURLoption, _ value: String) { check(value.withCString { sluice_easy_set_pointer(handle, option, $0) }) }
        func set(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) { check(sluice_easy_set_pointer(handle, option, value)) }

        words[0] = 0
        set(CURLOPT_ERRORBUFFER, UnsafeMutableRawPointer(words.baseAddress))
        set(CURLOPT_PRIVATE, context)
        set(CURLOPT_URL, request.url)
        set(CURLOPT_PROTOCOLS_STR, "http,https")
        // Never a proxy of the environment: it would see the key of a plain http upstream, and the operator names his upstreams himself.
        set(CURLOPT_PROXY, "")
        set(CURLOPT_USERAGENT, "sluice")
        set(CURLOPT_NOSIGNAL, 1)
        // A transfer that is cancelled while its name is being resolved must not wait for the resolver's thread.
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
        return fault == CURLE_OK ? nil : String(cString: curl_easy_strerror(fault))
    }

    /// Has its connection closed when it is removed. Of HTTP/1.1 an unfinished one is closed anyhow; of HTTP/2 libcurl 7.88 keeps it, and
    /// the RST_STREAM that would end the exchange is never written: the upstream would generate on.
    func closeConnection() { _ = sluice_easy_set_long(handle, CURLOPT_FORBID_REUSE, 1) }

    /// Ends the connection of an exchange under way, before anything else is done about it: the other side is told at once, and what it
    /// still sends is refused.
    /// - Returns: the socket, which is still open; nil when none is being read from.
    func shutDown() -> Int32? {
        guard descriptor >= 0 else { return nil }
        // It fails for one that was cut already, which is as well.
        _ = shutdown(descriptor, Int32(SHUT_RDWR))
        delegate = nil
        return descriptor
    }

    /// - Returns: false if libcurl refused (then the transfer goes on as it did).
    func setPaused(_ paused: Bool) -> Bool {
        curl_easy_pause(handle, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT) == CURLE_OK
    }

    private static func milliseconds(_ duration: Duration) -> Int {
        let (seconds, attoseconds) = duration.components
        // 0 would mean libcurl's default of 300 s.
        return max(1, Int(min(seconds, 86_400)) * 1000 + Int(attoseconds / 1_000_000_000_000_000))
    }

    // MARK: from libcurl

    private func connected() {
        isConnected = true
        delegate?.exchangeConnected()
        progressed(self)
    }

    private static func header(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
        guard let context else { return 0 }
        let transfer = from(context)
        switch transfer.parser.line(UnsafeRawBufferPointer(start: bytes, count: count)) {
        case .more: return count
        case .tooLarge:
            transfer.exceededLimit = true
            return 0
        case .answered(let head):
            let goesOn = transfer.delegate?.exchangeAnswered(head) ?? false
            transfer.progressed(transfer)
            return goesOn ? count : 0
        }
    }

    private static func body(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
        guard let context else { return 0 }
        let transfer = from(context)
        let goesOn = transfer.delegate?.exchangeReceived(UnsafeRawBufferPointer(start: bytes, count: count)) ?? false
        transfer.progressed(transfer)
        return goesOn ? count : Int(CURL_WRITEFUNC_ERROR)
    }

    func finished(_ code: CURLcode) {
        outcome = ExchangeOutcome(kind: kind(of: code), detail: detail(of: code))
    }

    /// Its socket could not be watched: nothing would ever happen on it.
    func lost(_ error: LoopError) {
        outcome = ExchangeOutcome(kind: .broken, detail: "the socket could not be watched: \(error)")
    }

    private func detail(of code: CURLcode) -> String {
        if exceededLimit { return "the response's headers exceed \(HTTPResponseHead.maximumBytes) bytes" }
        // Of TLS only: the words on other faults hold addresses, which are nothing to whoever reads the job's failure.
        if Self.isOfTLS(code), words[0] != 0, let text = words.baseAddress { return String(cString: text) }
        return String(cString: curl_easy_strerror(code))
    }

    private static func isOfTLS(_ code: CURLcode) -> Bool {
        switch code {
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER, CURLE_SSL_CACERT_BADFILE,
            CURLE_SSL_ISSUER_ERROR:
            true
        default: false
        }
    }

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
        // HTTP/0.9, that is no HTTP, is told as an unsupported protocol; libcurl's own limits on headers as want of memory.
        // A continuation without a header line before it is told as a bad argument.
        case CURLE_UNSUPPORTED_PROTOCOL where isConnected, CURLE_BAD_FUNCTION_ARGUMENT where isConnected, CURLE_WEIRD_SERVER_REPLY,
            CURLE_BAD_CONTENT_ENCODING,
            CURLE_OUT_OF_MEMORY, CURLE_WRITE_ERROR:
            .malformed
        default: .impossible
        }
    }
}
