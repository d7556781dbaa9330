import NIOCore

/// What the client has not read yet.
struct SocketOutput {
    /// Unsent bytes from which on a socket is watched and counted.
    static let watchedSize = 16 << 10

    /// More than `watchedSize` is unsent, and the kernel takes no more for now.
    var isWatched = false
    /// Unsent bytes, as measured last, and those written since; 0 while the socket is not watched.
    var unsent = 0
    /// Whose account `unsent` counts in; nil: the socket was never registered.
    var tenant: UnsentOutput.Tenant?
    /// Called when the socket is not watched any more.
    var waiting: [() -> Void] = []
}

/// Bounds what is written to a client that does not read, and holds writers back that can wait.
extension AgentSocket {
    private var isOpen: Bool {
        switch state {
        case .closing, .closed: false
        default: true
        }
    }

    /// Calls `body` when the client has read nearly all that was sent, or never will; at once if nothing is unread.
    func whenRead(_ body: @escaping () -> Void) {
        if output.isWatched, isOpen { output.waiting.append(body) } else { body() }
    }

    /// The channel's writability changed.
    func watchOutput(_ channel: any Channel) {
        output.isWatched = !channel.isWritable
        measureOutput(channel)
        if !output.isWatched { releaseWaiting() }
    }

    /// Counts bytes that were written to a watched socket, and closes it when it or its tenant holds too much.
    func wrote(_ bytes: Int, _ context: ChannelHandlerContext) {
        guard !setUnsent(output.unsent + bytes) else { return }
        // What was written since the last flush is no sign of a slow reader.
        context.flush()
        guard output.isWatched, !measureOutput(context.channel) else { return }
        close(.tooSlow, output.unsent > settings.outgoingMaximum ? "too much is unread" : "too much of this tenant is unread")
    }

    /// - Returns: whether the socket and its tenant are within their limits.
    @discardableResult
    func measureOutput(_ channel: any Channel) -> Bool {
        guard output.isWatched else { return setUnsent(0) }
        do {
            return setUnsent(try channel.syncOptions?.getOption(.bufferedWritableBytes) ?? output.unsent)
        } catch {
            // The channel is closed.
            return true
        }
    }

    /// The socket takes nothing more.
    func leaveOutput() {
        output.isWatched = false
        _ = setUnsent(0)
        releaseWaiting()
    }

    func releaseWaiting() {
        let waiting = output.waiting
        output.waiting = []
        for body in waiting { body() }
    }

    private func setUnsent(_ bytes: Int) -> Bool {
        // Once it is closing, the socket has no session any more.
        if output.tenant == nil { output.tenant = session.map { node.context.unsent.tenant($0.owner) } }
        let change = bytes - output.unsent
        output.unsent = bytes
        let fits = output.tenant?.change(by: change) ?? true
        return fits && bytes <= settings.outgoingMaximum
    }
}
