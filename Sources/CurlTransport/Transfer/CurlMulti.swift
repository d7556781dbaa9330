import CCurl
import DequeModule

/// libcurl's multi-socket interface on an `EpollLoop`. The cost of an event depends on the number of ready sockets, not on all open ones.
/// Used on its loop only.
///
/// libcurl's callbacks only record what happened; delegates are called after libcurl has returned. So a delegate may cancel or start any
/// transfer, and calls into libcurl are never nested.
package final class CurlMulti: DescriptorHandler {
    /// A transfer that libcurl could not set up; the description holds libcurl's reason.
    package struct SetupError: Error, CustomStringConvertible {
        package let description: String
    }

    private let loop: EpollLoop
    private let settings: TransportSettings
    private let multi: UnsafeMutableRawPointer
    /// TLS sessions shared by all handles: later connections to a host resume the first one's session.
    private let share: UnsafeMutableRawPointer?
    private let sockets: UpstreamSockets
    /// Transfers in the multi handle, by easy handle.
    private var active: [UnsafeMutableRawPointer: CurlTransfer] = [:]
    /// Cancelled transfers whose sockets are shut down but whose handles are still in the multi handle.
    private var cancelled: [CurlTransfer] = []
    /// Transfers with events that were not delivered to their delegates yet.
    private var progressed = Deque<CurlTransfer>()
    private var isDelivering = false
    private var isDeliveryQueued = false
    private var isTimeoutQueued = false
    private var timer: LoopTimer?
    private var isClosed = false

    /// - Throws: `SetupError` if libcurl cannot be initialized.
    package init(loop: EpollLoop, settings: TransportSettings, sockets: UpstreamSockets) throws(SetupError) {
        self.loop = loop
        self.sockets = sockets
        self.settings = settings
        guard Self.libraryIsReady, let multi = curl_multi_init() else { throw SetupError(description: "libcurl initialization failed") }
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
        // No multiplexing: with HTTP/2 each request also has its own connection. See `CurlTransfer.closeConnection`.
        _ = sluice_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_NOTHING))
        timer = LoopTimer { [unowned self] in act(on: CURL_SOCKET_TIMEOUT, events: 0) }
    }

    /// Initializes libcurl's global state once per process.
    private static let libraryIsReady = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    deinit {
        if !isClosed { cleanUp() }
    }

    /// Number of transfers whose handles are in the multi handle.
    var held: Int { active.count + cancelled.count }

    /// Starts an exchange. It connects in this turn of the loop, or at the start of the next turn if called from the last batch.
    /// - Parameter owner: Id of the job whose connection `UpstreamSockets.cut` may shut down; nil for none.
    /// - Throws: `SetupError` with libcurl's reason. No connection was opened then.
    package func start(_ request: HTTPRequest, owner: String?, delegate: any ExchangeDelegate) throws(SetupError) -> CurlTransfer {
        loop.preconditionOnLoop()
        guard !isClosed else { throw SetupError(description: "the upstream client is closed") }
        guard let transfer = CurlTransfer(progressed: { [unowned self] in enqueue($0) }) else {
            throw SetupError(description: "libcurl could not allocate a transfer")
        }
        if let reason = transfer.prepare(request, owner: owner, settings: settings, sockets: sockets, share: share, delegate: delegate) {
            transfer.dispose()
            throw SetupError(description: reason)
        }
        active[transfer.handle] = transfer
        transfer.isActive = true
        updateConnectionLimit()
        let code = curl_multi_add_handle(multi, transfer.handle)
        guard code == CURLM_OK else {
            remove(transfer)
            throw SetupError(description: String(cString: curl_multi_strerror(code)))
        }
        return transfer
    }

    /// Removes an exchange and releases its delegate. If it was unfinished, its connection is shut down before this method returns.
    ///
    /// libcurl's clean-up takes many times longer than the shutdown. It is deferred to the next turn, which follows without waiting, so
    /// that the caller can report the end of the job first.
    package func remove(_ transfer: CurlTransfer) {
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
        updateConnectionLimit()
    }

    /// Closes and frees the transfers that `remove` shut down.
    private func clearCancelled() {
        guard !isClosed else { return }
        for transfer in cancelled {
            transfer.closeConnection()
            discard(transfer)
        }
        cancelled.removeAll(keepingCapacity: true)
        updateConnectionLimit()
    }

    /// Removes the handle from the multi handle and frees it. Its connection stays in the multi handle's pool.
    private func discard(_ transfer: CurlTransfer) {
        curl_multi_remove_handle(multi, transfer.handle)
        transfer.dispose()
    }

    /// Pauses or resumes reading of a transfer's response (back-pressure). Does nothing on an ended transfer.
    package func setPaused(_ paused: Bool, _ transfer: CurlTransfer) {
        loop.preconditionOnLoop()
        // Resuming may deliver buffered bytes from inside this call.
        guard transfer.isActive, transfer.outcome == nil else { return }
        _ = transfer.setPaused(paused)
        deliverLater()
    }

    /// Closes every connection. Delegates get no further callbacks.
    package func close() {
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

    /// Frees all handles, the multi handle and the share.
    private func cleanUp() {
        for transfer in Array(active.values) + cancelled { discard(transfer) }
        curl_multi_cleanup(multi)
        active = [:]
        cancelled = []
        if let share { curl_share_cleanup(share) }
    }

    /// Updates libcurl's connection limit. The limit includes connections in use; without adding them, no idle connection would be kept
    /// while more than `connectionsKept` are in use.
    private func updateConnectionLimit() {
        _ = sluice_multi_set_long(multi, CURLMOPT_MAXCONNECTS, max(1, settings.connectionsKept + held))
    }

    // MARK: event loop callbacks

    func descriptorReady(_ descriptor: Int32, readable: Bool, writable: Bool, failed: Bool) {
        act(on: descriptor, events: (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0) | (failed ? CURL_CSELECT_ERR : 0))
    }

    /// Passes socket events or a timeout to libcurl, then delivers what they caused.
    private func act(on descriptor: Int32, events: Int32) {
        guard !isClosed else { return }
        var running: Int32 = 0
        curl_multi_socket_action(multi, descriptor, events, &running)
        collectFinished()
        deliver()
    }

    /// Records the results of the transfers that libcurl has finished.
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

    // MARK: libcurl callbacks

    /// Socket callback: updates the epoll registration of a descriptor.
    private func watch(_ descriptor: Int32, _ what: Int32, of easy: UnsafeMutableRawPointer?) {
        guard !isClosed else { return }
        let transfer = easy.flatMap { active[$0] }
        guard what != CURL_POLL_REMOVE else {
            if transfer?.descriptor == descriptor { transfer?.descriptor = -1 }
            sockets.unassign(descriptor)
            return loop.forget(descriptor)
        }
        // Before the connection is established the descriptor may be one of several attempts, or belong to the name resolver.
        if what & CURL_POLL_IN != 0, let transfer, transfer.isConnected {
            transfer.descriptor = descriptor
            if let owner = transfer.owner { sockets.assign(descriptor, to: owner) }
        }
        do {
            try loop.watch(descriptor, read: what & CURL_POLL_IN != 0, write: what & CURL_POLL_OUT != 0, handler: self)
        } catch {
            // The kernel refused the watch (out of resources). Returning an error to libcurl would end every transfer, so only this one
            // fails.
            guard let transfer else { return }
            transfer.lost(error)
            enqueue(transfer)
            deliverLater()
        }
    }

    /// Timer callback: sets libcurl's timeout.
    /// - Parameter milliseconds: -1 cancels it. 0 means at once: the action is queued, because a loop timer would fire a turn later.
    private func setTimer(_ milliseconds: Int) {
        guard !isClosed, let timer else { return }
        if milliseconds > 0 {
            loop.set(timer, after: .milliseconds(milliseconds))
            return
        }
        loop.cancel(timer)
        guard milliseconds == 0, !isTimeoutQueued else { return }
        isTimeoutQueued = true
        loop.queue { [self] in
            isTimeoutQueued = false
            act(on: CURL_SOCKET_TIMEOUT, events: 0)
        }
    }

    /// Queues a transfer for `deliver`, once.
    private func enqueue(_ transfer: CurlTransfer) {
        guard !transfer.isQueued else { return }
        transfer.isQueued = true
        progressed.append(transfer)
    }

    /// Queues a delivery, for events that did not arise inside `act`.
    private func deliverLater() {
        guard !progressed.isEmpty, !isDelivering, !isDeliveryQueued else { return }
        isDeliveryQueued = true
        loop.queue { [self] in
            isDeliveryQueued = false
            deliver()
        }
    }

    /// Calls the delegates of transfers with recorded events. Delegates may cancel, start, pause and close from inside.
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
