import Logging
import NIOCore
import NIOWebSocket

/// What a socket costs: bytes that it holds, and whose account they are charged to.
extension AgentSocket {
    /// In front of the decoder, which would gather a whole frame before this handler sees any of it.
    func addIntake(_ context: ChannelHandlerContext) {
        let pipeline = context.pipeline.syncOperations
        do {
            let decoder = try pipeline.context(handlerType: ByteToMessageHandler<WebSocketFrameDecoder>.self).handler
            try pipeline.addHandler(SocketIntake(self), position: .before(decoder))
        } catch {
            // A pipeline that was built without a decoder carries frames, not bytes.
            node.context.logger.debug("no frame decoder", metadata: ["error": "\(error)"])
        }
    }

    /// Counts bytes from the network.
    /// - Returns: false when they are not to be looked at: the socket is being closed.
    func takes(bytes count: Int) -> Bool {
        if case .closed = state { return false }
        // Time that is spent waiting for the account is no silence.
        wasHeard = true
        if session == nil {
            unregisteredBytes += count
            // With room for the frames' headers.
            guard unregisteredBytes <= 2 * UnregisteredBudget.maximumBytes else {
                close(.messageTooBig, "too much before REGISTER")
                return false
            }
        }
        setPending(pendingBytes + count)
        guard account.isOverfull, pendingBytes > TrafficAccount.reserve else { return true }
        close(.overloaded, "too many bytes of this tenant are in memory")
        return false
    }

    /// The decoder has seen `count` bytes.
    func passed(bytes count: Int) {
        defer { frames = 0 }
        // What is left of them belongs to a frame that is not whole.
        if frames > 0 { setPending(min(pendingBytes, count) + messages.heldBytes) }
    }

    private func setPending(_ bytes: Int) {
        if case .closed = state { return }
        account.hold(bytes - pendingBytes)
        pendingBytes = bytes
    }

    /// Counts the socket as the tenant's.
    /// - Returns: false when the tenant has as many sockets as it may.
    func join(_ tenant: TrafficAccount) -> Bool {
        // A second REGISTER, after one that was refused.
        if isCounted, account === tenant { return true }
        guard tenant.admitSocket() else { return false }
        account.release(pendingBytes)
        if isCounted { account.removeSocket() }
        account = tenant
        isCounted = true
        account.hold(pendingBytes)
        return true
    }

    func leaveAccount() {
        account.release(pendingBytes)
        pendingBytes = 0
        if isCounted { account.removeSocket() }
        isCounted = false
    }
}
