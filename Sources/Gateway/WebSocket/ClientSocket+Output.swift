import NIOCore

/// State of a socket's unsent output.
struct SocketOutput {
    /// Unsent bytes above which a socket is watched and counted.
    static let watchedSize = 16 << 10

    /// Whether more than `watchedSize` bytes are unsent because the kernel's buffer is full.
    var isWatched = false
    /// Unsent bytes at the last measurement plus the bytes written since; 0 while the socket is not watched.
    var unsent = 0
    /// The tenant whose count includes `unsent`; nil when the socket was never registered.
    var tenant: UnsentOutput.Tenant?
    /// Handlers that are called once the socket is no longer watched.
    var waiting: [() -> Void] = []
}

/// Limits the unsent output of a client that reads slowly, and delays writers that can wait.
extension ClientSocket {
    private var isOpen: Bool {
        switch state {
        case .closing, .closed: false
        default: true
        }
    }

    /// Calls `body` once the client has read most of the output or the socket is closing; immediately when the socket is not watched.
    func whenRead(_ body: @escaping () -> Void) {
        if output.isWatched, isOpen { output.waiting.append(body) } else { body() }
    }

    /// Handles a change of the channel's writability.
    func watchOutput(_ channel: any Channel) {
        output.isWatched = !channel.isWritable
        measureOutput(channel)
        if !output.isWatched { releaseWaiting() }
    }

    /// Counts bytes that were written to a watched socket, and closes it when it or its tenant holds too much.
    func wrote(_ bytes: Int, _ context: ChannelHandlerContext) {
        guard !setUnsent(output.unsent + bytes) else { return }
        // Unflushed data does not mean that the reader is slow, so flush before judging.
        context.flush()
        guard output.isWatched, !measureOutput(context.channel) else { return }
        close(.tooSlow, output.unsent > settings.outgoingMaximum ? "too much unread output" : "too much unread output of this tenant")
    }

    /// Updates the count of unsent bytes from the channel.
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

    /// Stops counting when the socket closes.
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
        // A closing socket has no session, so the tenant is kept here.
        if output.tenant == nil { output.tenant = session.map { gateway.context.unsent.tenant($0.owner) } }
        let change = bytes - output.unsent
        output.unsent = bytes
        let fits = output.tenant?.change(by: change) ?? true
        return fits && bytes <= settings.outgoingMaximum
    }
}

/// The sockets written to during the current event loop tick. Each is flushed once, after the tick. Confined to the event loop.
final class FlushList {
    private var sockets: [ClientSocket] = []
    private let eventLoop: any EventLoop

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Adds a socket. The caller adds each socket at most once between flushes.
    func add(_ socket: ClientSocket) {
        sockets.append(socket)
        guard sockets.count == 1 else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute { bound.value.flush() }
    }

    private func flush() {
        let dirty = sockets
        sockets.removeAll(keepingCapacity: true)
        for socket in dirty { socket.flush() }
    }
}
