import CCurl
import Contract
import DequeModule

/// libcurl's multi-socket interface on an `EpollLoop`: what happens costs in proportion to the sockets that are ready, never to all there
/// are.
/// A door to C, to be used on its loop only.
///
/// The callbacks of libcurl only take notes and delegates are told after it has returned. So a delegate may cancel any transfer or start
/// others, and no call into libcurl ever stands inside another.
final class CurlMulti: DescriptorHandler {
    struct SetupError: Error, CustomStringConvertible {
        let description: String
    }

    private let loop: EpollLoop
    private let settings: UpstreamSettings
    private let multi: UnsafeMutableRawPointer
    /// TLS sessions for all handles: a second connection to a host resumes the first one's.
    private let share: UnsafeMutableRawPointer?
    private let sockets: UpstreamSockets
    private var active: [UnsafeMutableRawPointer: CurlTransfer] = [:]
    /// Cancelled: their connections are shut down, libcurl does not know yet.
    private var cancelled: [CurlTransfer] = []
    private var progressed = Deque<CurlTransfer>()
    private var isDelivering = false
    private var isDeliveryQueued = false
    private var isKickQueued = false
    private var timer: LoopTimer?
    private var isClosed = false

    init(loop: EpollLoop, settings: UpstreamSettings, sockets: UpstreamSockets) throws(SetupError) {
        self.loop = loop
        self.sockets = sockets
        self.settings = settings
        guard Self.libraryIsReady, let multi = curl_multi_init() else { throw SetupError(description: "libcurl could not be initialized") }
        self.multi = multi
        share = curl_share_init()
        if let share { _ = sluice_share_set_long(share, CURLSHOPT_SHARE, Int(CURL_LOCK_DATA_SSL_SESSION.rawValue)) }
        let context = Unmanaged.passUnretained(self).toOpaque()
        _ = sluice_multi_set_pointer(multi, CURLMOPT_SOCKETDATA, context)
        _ = sluice_multi_set_socket_callback(multi) { easy, descriptor, what, context, _ in
            if let context { Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue().watch(descriptor, what, of: easy) }
            return 0
        }
        _ = sluice_multi_set_pointer(multi, CURLMOPT_TIMERDATA, context)
        _ = sluice_multi_set_timer_callback(multi) { _, milliseconds, context in
            if let context { Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue().setTimer(milliseconds) }
            return 0
        }
        // Over HTTP/2, too, a request has its connection for itself: see `CurlTransfer.closeConnection`.
        _ = sluice_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_NOTHING))
        timer = LoopTimer { [unowned self] in act(on: CURL_SOCKET_TIMEOUT, events: 0) }
    }

    /// Global state of libcurl, once in the process.
    private static let libraryIsReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    deinit {
        if !isClosed { cleanUp() }
    }

    /// Transfers whose handles libcurl still works on.
    var held: Int { active.count + cancelled.count }

    /// Starts an exchange; it is dialled in this turn of the loop, or at the start of the next when called in the turn's last batch.
    /// - Parameter owner: the job whose connection it is for `UpstreamSockets.cut`.
    /// - Throws: `SetupError` with libcurl's reason; nothing was dialled then.
    func start(_ request: HTTPRequest, owner: JobID?, delegate: any ExchangeDelegate) throws(SetupError) -> CurlTransfer {
        loop.preconditionOnLoop()
        guard !isClosed else { throw SetupError(description: "the upstream client is closed") }
        guard let transfer = CurlTransfer(progressed: { [unowned self] in enqueue($0) }) else {
            throw SetupError(description: "libcurl has no memory for a transfer")
        }
        if let fault = transfer.prepare(request, owner: owner, settings: settings, sockets: sockets, share: share, delegate: delegate) {
            transfer.dispose()
            throw SetupError(description: fault)
        }
        active[transfer.handle] = transfer
        transfer.isActive = true
        boundConnections()
        let code = curl_multi_add_handle(multi, transfer.handle)
        guard code == CURLM_OK else {
            remove(transfer)
            throw SetupError(description: String(cString: curl_multi_strerror(code)))
        }
        return transfer
    }

    /// Ends an exchange and forgets its delegate. The connection of an unfinished exchange is shut down when this returns.
    ///
    /// What libcurl has to do about that takes many times as long as the shutdown itself: it comes in the loop's next turn, which follows
    /// without a wait, so that who waits for the end is told first.
    func remove(_ transfer: CurlTransfer) {
        loop.preconditionOnLoop()
        guard transfer.isActive else { return }
        transfer.isActive = false
        active[transfer.handle] = nil
        if transfer.outcome == nil {
            if let descriptor = transfer.shutDown() {
                loop.forget(descriptor)
                if cancelled.isEmpty { loop.queue { [self] in clearCancelled() } }
                cancelled.append(transfer)
                return
            }
            transfer.closeConnection()
        }
        discard(transfer)
        boundConnections()
    }

    private func clearCancelled() {
        guard !isClosed else { return }
        for transfer in cancelled {
            transfer.closeConnection()
            discard(transfer)
        }
        cancelled.removeAll(keepingCapacity: true)
        boundConnections()
    }

    /// Takes the handle out of the multi handle and frees it. Its connection stays in the multi handle's pool.
    private func discard(_ transfer: CurlTransfer) {
        curl_multi_remove_handle(multi, transfer.handle)
        transfer.dispose()
    }

    func setPaused(_ paused: Bool, _ transfer: CurlTransfer) {
        loop.preconditionOnLoop()
        // Going on may hand over what was read before, from inside this call.
        guard transfer.isActive, transfer.outcome == nil else { return }
        _ = transfer.setPaused(paused)
        deliverLater()
    }

    /// Closes every connection; delegates are not told.
    func close() {
        loop.preconditionOnLoop()
        guard !isClosed else { return }
        isClosed = true
        for transfer in Array(active.values) + cancelled {
            transfer.isActive = false
            discard(transfer)
        }
        active = [:]
        cancelled = []
        progressed = []
        cleanUp()
        if let timer { loop.cancel(timer) }
        timer = nil
    }

    private func cleanUp() {
        for transfer in Array(active.values) + cancelled { discard(transfer) }
        curl_multi_cleanup(multi)
        active = [:]
        cancelled = []
        if let share { curl_share_cleanup(share) }
    }

    /// libcurl's limit counts connections in use as well: without these added, none would be kept while more than `connectionsKept` are at
    /// work.
    private func boundConnections() {
        _ = sluice_multi_set_long(multi, CURLMOPT_MAXCONNECTS, max(1, settings.connectionsKept + held))
    }

    // MARK: from the loop

    func descriptorReady(_ descriptor: Int32, readable: Bool, writable: Bool, failed: Bool) {
        act(on: descriptor, events: (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0) | (failed ? CURL_CSELECT_ERR : 0))
    }

    private func act(on descriptor: Int32, events: Int32) {
        guard !isClosed else { return }
        var running: Int32 = 0
        curl_multi_socket_action(multi, descriptor, events, &running)
        collectFinished()
        deliver()
    }

    private func collectFinished() {
        var left: Int32 = 0
        while let message = curl_multi_info_read(multi, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let handle = message.pointee.easy_handle, let transfer = active[handle] else {
                continue
            }
            transfer.finished(message.pointee.data.result)
            enqueue(transfer)
        }
    }

    // MARK: from libcurl

    private func watch(_ descriptor: Int32, _ what: Int32, of easy: UnsafeMutableRawPointer?) {
        guard !isClosed else { return }
        let transfer = easy.flatMap { active[$0] }
        guard what != CURL_POLL_REMOVE else {
            if transfer?.descriptor == descriptor { transfer?.descriptor = -1 }
            sockets.unassign(descriptor)
            return loop.forget(descriptor)
        }
        // Before that it may be one of several that are being tried, or the name look-up's.
        if what & CURL_POLL_IN != 0, let transfer, transfer.isConnected {
            transfer.descriptor = descriptor
            if let owner = transfer.owner { sockets.assign(descriptor, to: owner) }
        }
        do {
            try loop.watch(descriptor, read: what & CURL_POLL_IN != 0, write: what & CURL_POLL_OUT != 0, handler: self)
        } catch {
            // The kernel has no room for another watch. An error returned to libcurl would end every transfer.
            guard let transfer else { return }
            transfer.lost(error)
            enqueue(transfer)
            deliverLater()
        }
    }

    /// - Parameter milliseconds: -1 never, 0 now (which a timer of the loop would take for later).
    private func setTimer(_ milliseconds: Int) {
        guard !isClosed, let timer else { return }
        if milliseconds > 0 {
            loop.set(timer, after: .milliseconds(milliseconds))
            return
        }
        loop.cancel(timer)
        guard milliseconds == 0, !isKickQueued else { return }
        isKickQueued = true
        loop.queue { [self] in
            isKickQueued = false
            act(on: CURL_SOCKET_TIMEOUT, events: 0)
        }
    }

    private func enqueue(_ transfer: CurlTransfer) {
        guard !transfer.isQueued else { return }
        transfer.isQueued = true
        progressed.append(transfer)
    }

    private func deliverLater() {
        guard !progressed.isEmpty, !isDelivering, !isDeliveryQueued else { return }
        isDeliveryQueued = true
        loop.queue { [self] in
            isDeliveryQueued = false
            deliver()
        }
    }

    /// Tells the delegates of what was noted. They may cancel, start, pause and close from inside.
    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        while let transfer = progressed.popFirst() {
            transfer.isQueued = false
            guard transfer.isActive, let delegate = transfer.delegate else { continue }
            let outcome = transfer.outcome
            if outcome != nil { remove(transfer) }
            delegate.exchangeProgressed(outcome: outcome)
        }
    }
}
