import CCurl

/// libcurl's multi-socket interface on an `EpollLoop`. The cost of an event depends on the number of ready sockets, not on all open ones.
/// Used on its loop only.
///
/// libcurl's callbacks only record what happened; delegates are called after libcurl has returned. So a delegate may cancel or start any
/// transfer, and calls into libcurl are never nested.
package final class CurlMulti: DescriptorHandler, CurlMultiEvents {
    /// A transfer that libcurl could not set up; the description holds libcurl's reason.
    package struct SetupError: Error, CustomStringConvertible {
        package let description: String
    }

    private let loop: EpollLoop
    private let settings: TransportSettings
    private let multi: CurlMultiHandle
    private let sockets: UpstreamSockets
    /// Transfers in the multi handle, by easy handle.
    private var active: [CurlEasy.ID: CurlTransfer] = [:]
    /// Cancelled transfers whose sockets are shut down but whose handles are still in the multi handle.
    private var cancelled: [CurlTransfer] = []
    private let deliveries = DeliveryQueue()
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
        guard let multi = CurlMultiHandle() else { throw SetupError(description: "libcurl initialization failed") }
        self.multi = multi
        multi.setEvents(self)
        // No multiplexing: with HTTP/2 each request also has its own connection. See `CurlTransfer.closeConnection`.
        multi.set(CURLMOPT_PIPELINING, Int(CURLPIPE_NOTHING))
        timer = LoopTimer { [unowned self] in act(on: CURL_SOCKET_TIMEOUT, events: 0) }
    }

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
        guard let transfer = CurlTransfer(deliveries: deliveries) else {
            throw SetupError(description: "libcurl could not allocate a transfer")
        }
        if let reason = transfer.prepare(request, owner: owner, settings: settings, sockets: sockets, multi: multi, delegate: delegate) {
            transfer.dispose()
            throw SetupError(description: reason)
        }
        active[transfer.easy.id] = transfer
        transfer.isActive = true
        updateConnectionLimit()
        if let reason = multi.add(transfer.easy) {
            remove(transfer)
            throw SetupError(description: reason)
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
        active[transfer.easy.id] = nil
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
        multi.remove(transfer.easy)
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
        for transfer in active.values { transfer.isActive = false }
        deliveries.removeAll()
        cleanUp()
        if let timer { loop.cancel(timer) }
        timer = nil
    }

    /// Frees all handles, the multi handle and the share.
    private func cleanUp() {
        multi.setEvents(nil)
        for transfer in Array(active.values) + cancelled { discard(transfer) }
        active = [:]
        cancelled = []
        multi.free()
    }

    /// Updates libcurl's connection limit. The limit includes connections in use; without adding them, no idle connection would be kept
    /// while more than `connectionsKept` are in use.
    private func updateConnectionLimit() {
        multi.set(CURLMOPT_MAXCONNECTS, max(1, settings.connectionsKept + held))
    }

    // MARK: event loop callbacks

    func descriptorReady(_ descriptor: Int32, readable: Bool, writable: Bool, failed: Bool) {
        act(on: descriptor, events: (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0) | (failed ? CURL_CSELECT_ERR : 0))
    }

    /// Passes socket events or a timeout to libcurl, then delivers what they caused.
    private func act(on descriptor: Int32, events: Int32) {
        guard !isClosed else { return }
        multi.act(on: descriptor, events: events)
        collectFinished()
        deliver()
    }

    /// Records the results of the transfers that libcurl has finished.
    private func collectFinished() {
        while let (easy, result) = multi.nextFinished() {
            guard let transfer = active[easy] else { continue }
            transfer.finished(result)
            deliveries.append(transfer)
        }
    }

    // MARK: libcurl callbacks

    /// Socket callback: updates the epoll registration of a descriptor.
    func curlWatches(_ descriptor: Int32, _ what: Int32, of easy: CurlEasy.ID?) {
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
            deliveries.append(transfer)
            deliverLater()
        }
    }

    /// Timer callback: sets libcurl's timeout.
    /// - Parameter milliseconds: -1 cancels it. 0 means at once: the action is queued, because a loop timer would fire a turn later.
    func curlSetsTimer(milliseconds: Int) {
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

    /// Queues a delivery, for events that did not arise inside `act`.
    private func deliverLater() {
        guard !deliveries.isEmpty, !isDelivering, !isDeliveryQueued else { return }
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
        while let transfer = deliveries.popFirst() {
            guard transfer.isActive, let delegate = transfer.delegate else { continue }
            let outcome = transfer.outcome
            if outcome != nil { remove(transfer) }
            delegate.exchangeProgressed(outcome: outcome)
        }
    }
}
