import NIOCore

/// A channel handler that detects a client's disconnect while nothing is being read or written.
///
/// Hummingbird reports a disconnect only while the request body is read or the response is written, not while a handler waits for the
/// first token. A half-closed connection counts as disconnected, because TCP cannot distinguish it from a full close.
final class ClientPresence: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    private var isGone = false
    private var onGone: (@Sendable () -> Void)?

    /// Calls `onGone` once, on the event loop, when the client disconnects, or immediately if it already has. A connection has at most one
    /// callback; a new one replaces the previous one. Can be called from any thread.
    static func watch(_ channel: any Channel, onGone: @escaping @Sendable () -> Void) {
        channel.eventLoop.execute {
            let operations = channel.pipeline.syncOperations
            if let present = try? operations.handler(type: ClientPresence.self) {
                return present.isGone ? onGone() : (present.onGone = onGone)
            }
            let handler = ClientPresence()
            handler.onGone = onGone
            do {
                guard channel.isActive else { throw ChannelError.alreadyClosed }
                try operations.addHandler(handler, position: .first)
            } catch {
                handler.reportGone()
            }
        }
    }

    /// Removes the callback of `watch`. Can be called from any thread.
    static func unwatch(_ channel: any Channel) {
        channel.eventLoop.execute {
            (try? channel.pipeline.syncOperations.handler(type: ClientPresence.self))?.onGone = nil
        }
    }

    private func reportGone() {
        isGone = true
        let onGone = onGone
        self.onGone = nil
        onGone?()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed = event as? ChannelEvent { reportGone() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        reportGone()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A connection reset is first reported as an error; `channelInactive` may be delayed by pending writes.
        if error is IOError { reportGone() }
        context.fireErrorCaught(error)
    }
}
