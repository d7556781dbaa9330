import Logging
import NIOCore
import NIOWebSocket

/// Accounting of the bytes that a socket holds, on the account of its address or tenant.
extension ClientSocket {
    /// Inserts `SocketIntake` before the frame decoder, which would buffer a whole frame before this handler sees any of it.
    func addIntake(_ context: ChannelHandlerContext) {
        let pipeline = context.pipeline.syncOperations
        do {
            let decoder = try pipeline.context(handlerType: ByteToMessageHandler<WebSocketFrameDecoder>.self).handler
            try pipeline.addHandler(SocketIntake(self), position: .before(decoder))
        } catch {
            // Pipelines without a decoder (tests) carry frames, not bytes.
            gateway.context.logger.debug("no frame decoder", metadata: ["error": "\(error)"])
        }
    }

    /// Counts bytes from the network, before they are decoded.
    /// - Returns: false when they must be dropped because the socket is closing.
    func takes(bytes count: Int) -> Bool {
        if case .closed = state { return false }
        // Set here and not at the frame: a client is not silent while its bytes wait for a throttled account.
        wasHeard = true
        if session == nil {
            unregisteredBytes += count
            // Twice the budget, because frame headers are included here.
            guard unregisteredBytes <= 2 * UnregisteredBudget.maximumBytes else {
                close(.messageTooBig, "too much data before REGISTER")
                return false
            }
        }
        setPending(pendingBytes + count)
        guard account.isOverfull, pendingBytes > TrafficAccount.reserve else { return true }
        close(.overloaded, "too many bytes in memory for this tenant")
        return false
    }

    /// Updates the held bytes after the decoder processed `count` bytes.
    func passed(bytes count: Int) {
        defer { frames = 0 }
        // What remains undecoded belongs to an incomplete frame and is at most this read.
        if frames > 0 { setPending(min(pendingBytes, count) + messages.heldBytes) }
    }

    private func setPending(_ bytes: Int) {
        if case .closed = state { return }
        account.hold(bytes - pendingBytes)
        pendingBytes = bytes
    }

    /// Moves the socket from its current account to the tenant's.
    /// - Returns: false when the tenant is at its limit of sockets.
    func join(_ tenant: TrafficAccount) -> Bool {
        // A REGISTER that follows a failed one.
        if isCounted, account === tenant { return true }
        guard tenant.admitSocket() else { return false }
        account.release(pendingBytes)
        if isCounted { account.removeSocket() }
        account = tenant
        isCounted = true
        account.hold(pendingBytes)
        return true
    }

    /// Releases all that the socket holds in its account.
    func leaveAccount() {
        account.release(pendingBytes)
        pendingBytes = 0
        if isCounted { account.removeSocket() }
        isCounted = false
    }
}
