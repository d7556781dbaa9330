import CCurl
import Support

// libcurl's handles with safe interfaces. libcurl calls back only from inside the functions of its handles, on their thread.

/// An easy handle: one transfer.
@safe
final class CurlEasy {
    /// Identifies a handle until it is freed.
    typealias ID = UInt

    let id: ID
    /// Nil after `free`; libcurl's functions then return an error.
    fileprivate private(set) var pointer: UnsafeMutableRawPointer?
    private var headers: UnsafeMutablePointer<curl_slist>?
    private let errorBuffer: UnsafeMutableBufferPointer<CChar>
    /// The first error of the setters; `CURLE_OK` if there was none.
    private(set) var firstError = CURLE_OK

    /// Returns nil if libcurl cannot allocate a handle.
    init?() {
        guard let pointer = unsafe curl_easy_init() else { return nil }
        unsafe self.pointer = pointer
        id = UInt(bitPattern: pointer)
        unsafe errorBuffer = .allocate(capacity: Int(CURL_ERROR_SIZE))
        unsafe errorBuffer.initialize(repeating: 0)
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_ERRORBUFFER, errorBuffer.baseAddress))
    }

    deinit {
        free()
        unsafe errorBuffer.deallocate()
    }

    /// Frees the handle, which must not be in a multi handle. Options and pauses have no effect afterwards.
    func free() {
        unsafe curl_easy_cleanup(pointer)
        unsafe pointer = nil
        unsafe curl_slist_free_all(headers)
        unsafe headers = nil
    }

    // MARK: options

    fileprivate func check(_ code: CURLcode) { if firstError == CURLE_OK { firstError = code } }

    func set(_ option: CURLoption, _ value: Int) { unsafe check(sluice_easy_set_long(pointer, option, value)) }

    /// Sets an option to a string, which libcurl copies.
    func set(_ option: CURLoption, _ value: String) {
        unsafe check(value.withCString { unsafe sluice_easy_set_pointer(pointer, option, $0) })
    }

    /// Sets the lines of the request's head. Called once.
    func setHeaders(_ lines: [String]) {
        for line in lines {
            guard let list = unsafe curl_slist_append(headers, line) else { return check(CURLE_OUT_OF_MEMORY) }
            unsafe headers = list
        }
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_HTTPHEADER, headers))
    }

    /// Sets the request's body, which libcurl copies.
    func setBody(_ body: [UInt8]) {
        unsafe check(sluice_easy_set_size(pointer, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count)))
        unsafe check(body.withUnsafeBytes { unsafe sluice_easy_set_pointer(pointer, CURLOPT_COPYPOSTFIELDS, $0.baseAddress) })
    }

    /// Sets the transfer that receives the handle's events. It must outlive the handle's membership in a multi handle.
    func setEvents(_ transfer: CurlTransfer) {
        let context = unsafe Unmanaged.passUnretained(transfer).toOpaque()
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_PREREQDATA, context))
        unsafe check(
            sluice_easy_set_prerequest(pointer) { context, _, _, _, _ in
                unsafe CurlEasy.transfer(context)?.curlConnected()
                return CURL_PREREQFUNC_OK
            })
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_HEADERDATA, context))
        unsafe check(
            sluice_easy_set_data_callback(pointer, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
                let line = unsafe CurlEasy.bytes(bytes, size * count).span
                let shouldContinue = unsafe CurlEasy.transfer(context)?.curlReceivedHeader(line) ?? false
                return shouldContinue ? size * count : 0
            })
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_WRITEDATA, context))
        unsafe check(
            sluice_easy_set_data_callback(pointer, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
                let body = unsafe CurlEasy.bytes(bytes, size * count).span
                let shouldContinue = unsafe CurlEasy.transfer(context)?.curlReceivedBody(body) ?? false
                return shouldContinue ? size * count : Int(CURL_WRITEFUNC_ERROR)
            })
    }

    private static func transfer(_ context: UnsafeMutableRawPointer?) -> CurlTransfer? {
        unsafe context.map { unsafe Unmanaged<CurlTransfer>.fromOpaque($0).takeUnretainedValue() }
    }

    private static func bytes(_ start: UnsafeMutablePointer<CChar>?, _ count: Int) -> UnsafeBufferPointer<UInt8> {
        unsafe UnsafeRawBufferPointer(start: start, count: count).bindMemory(to: UInt8.self)
    }

    /// Sets who opens and closes the sockets. It must outlive every connection that the handle opens, also those that it leaves in the pool
    /// of a multi handle.
    func setSockets(_ sockets: UpstreamSockets) {
        let context = unsafe Unmanaged.passUnretained(sockets).toOpaque()
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_OPENSOCKETDATA, context))
        unsafe check(
            sluice_easy_set_open_socket(pointer) { context, _, address in
                guard let context = unsafe context, let pointer = unsafe address else { return CURL_SOCKET_BAD }
                let sockets = unsafe Unmanaged<UpstreamSockets>.fromOpaque(context).takeUnretainedValue()
                if let rule = sockets.rule {
                    var bytes = [UInt8](repeating: 0, count: 16)
                    let count = unsafe bytes.withUnsafeMutableBufferPointer { unsafe sluice_address_bytes(pointer, $0.baseAddress) }
                    guard rule.allows(Array(bytes.prefix(Int(count)))) else { return CURL_SOCKET_BAD }
                }
                let address = unsafe pointer.pointee
                return sockets.openSocket(family: address.family, type: address.socktype, protocol: address.protocol)
            })
        unsafe check(sluice_easy_set_pointer(pointer, CURLOPT_CLOSESOCKETDATA, context))
        unsafe check(
            sluice_easy_set_close_socket(pointer) { context, socket in
                guard let context = unsafe context else { return -1 }
                return unsafe Unmanaged<UpstreamSockets>.fromOpaque(context).takeUnretainedValue().closeSocket(socket)
            })
    }

    // MARK: transfer

    /// Pauses or resumes reading. Returns false if libcurl refused.
    func setPaused(_ paused: Bool) -> Bool { unsafe curl_easy_pause(pointer, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT) == CURLE_OK }

    /// Number of connections that the transfer has opened; 0 if it reused one or the handle was freed.
    var openedConnections: Int {
        var count = 0
        return unsafe sluice_easy_get_long(pointer, CURLINFO_NUM_CONNECTS, &count) == CURLE_OK ? count : 0
    }

    /// libcurl's text about the last error, more specific than its code; empty if there is none.
    var errorText: String {
        unsafe errorBuffer.baseAddress.map { unsafe String(cString: $0) } ?? ""
    }

    /// libcurl's description of an error code.
    static func text(of code: CURLcode) -> String { unsafe String(cString: curl_easy_strerror(code)) }
}

/// Receives what libcurl asks of the event loop.
protocol CurlMultiEvents: AnyObject {
    /// - Parameter action: `CURL_POLL_IN`, `CURL_POLL_OUT`, both or `CURL_POLL_REMOVE`.
    func curlWatches(_ descriptor: Int32, _ action: Int32, of easy: CurlEasy.ID?)
    /// - Parameter milliseconds: -1 cancels the timer, 0 means at once.
    func curlSetsTimer(milliseconds: Int)
}

/// A multi handle: transfers and a pool of connections. All its transfers can share their TLS sessions.
@safe
final class CurlMultiHandle {
    /// Nil after `free`; libcurl's functions then return an error.
    private var pointer: UnsafeMutableRawPointer?
    private var share: UnsafeMutableRawPointer?
    private unowned var events: (any CurlMultiEvents)?

    /// Initializes libcurl's global state once per process.
    private static let libraryIsReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    /// Returns nil if libcurl cannot be initialized.
    init?() {
        guard Self.libraryIsReady, let pointer = unsafe curl_multi_init() else { return nil }
        unsafe self.pointer = pointer
        unsafe share = curl_share_init()
        if let share = unsafe share {
            _ = unsafe sluice_share_set_long(share, CURLSHOPT_SHARE, Int(CURL_LOCK_DATA_SSL_SESSION.rawValue))
        }
    }

    deinit { free() }

    /// Closes the pool's connections and frees the handle. The transfers must have been removed and freed before. Other functions have no
    /// effect afterwards.
    func free() {
        guard let pointer = unsafe pointer else { return }
        events = nil
        unsafe self.pointer = nil
        unsafe curl_multi_cleanup(pointer)
        if let share = unsafe share { unsafe curl_share_cleanup(share) }
        unsafe share = nil
    }

    func set(_ option: CURLMoption, _ value: Int) { _ = unsafe sluice_multi_set_long(pointer, option, value) }

    /// Sets the receiver of events; nil to ignore them. It must outlive the handle or be replaced by nil.
    func setEvents(_ events: (any CurlMultiEvents)?) {
        self.events = events
        let context = unsafe Unmanaged.passUnretained(self).toOpaque()
        _ = unsafe sluice_multi_set_pointer(pointer, CURLMOPT_SOCKETDATA, context)
        _ = unsafe sluice_multi_set_socket_callback(pointer) { easy, descriptor, action, context, _ in
            unsafe CurlMultiHandle.events(context)?.curlWatches(descriptor, action, of: easy.map { UInt(bitPattern: $0) })
            return 0
        }
        _ = unsafe sluice_multi_set_pointer(pointer, CURLMOPT_TIMERDATA, context)
        _ = unsafe sluice_multi_set_timer_callback(pointer) { _, milliseconds, context in
            unsafe CurlMultiHandle.events(context)?.curlSetsTimer(milliseconds: milliseconds)
            return 0
        }
    }

    private static func events(_ context: UnsafeMutableRawPointer?) -> (any CurlMultiEvents)? {
        unsafe context.flatMap { unsafe Unmanaged<CurlMultiHandle>.fromOpaque($0).takeUnretainedValue().events }
    }

    /// Lets a transfer use the shared TLS sessions: later connections to a host resume the first one's session.
    func shareSessions(with easy: CurlEasy) {
        if let share = unsafe share { unsafe easy.check(sluice_easy_set_pointer(easy.pointer, CURLOPT_SHARE, share)) }
    }

    /// Starts a transfer.
    /// - Returns: nil, or libcurl's reason if it refused.
    func add(_ easy: CurlEasy) -> String? {
        let code = unsafe curl_multi_add_handle(pointer, easy.pointer)
        return unsafe code == CURLM_OK ? nil : String(cString: curl_multi_strerror(code))
    }

    /// Ends a transfer. Its connection stays in the pool if it can be reused.
    func remove(_ easy: CurlEasy) { _ = unsafe curl_multi_remove_handle(pointer, easy.pointer) }

    /// Reports events of a socket, or a timeout with `CURL_SOCKET_TIMEOUT`.
    func act(on descriptor: Int32, events: Int32) {
        var running: Int32 = 0
        _ = unsafe curl_multi_socket_action(pointer, descriptor, events, &running)
    }

    /// The next transfer that has ended and was not reported before; nil if there is none.
    func nextFinished() -> (easy: CurlEasy.ID, result: CURLcode)? {
        var left: Int32 = 0
        while let message = unsafe curl_multi_info_read(pointer, &left) {
            guard unsafe message.pointee.msg == CURLMSG_DONE, let easy = unsafe message.pointee.easy_handle else { continue }
            return unsafe (UInt(bitPattern: easy), message.pointee.data.result)
        }
        return nil
    }
}
