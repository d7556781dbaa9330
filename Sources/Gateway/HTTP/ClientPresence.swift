import NIOCore

/// Notices at once that a client closed its connection, while nothing is being written to it.
///
/// Hummingbird tells the one who reads the request's body or writes the response; between them, waiting for a first token, nobody does
/// either.
/// A client that closes only its sending half is taken for gone: TCP does not tell it from one that left.
final class ClientPresence: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    private var isGone = false
    private var onGone: (@Sendable () -> Void)?

    /// Calls `onGone` once, on the event loop, when the client leaves; at once when it has left. One watch a connection.
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
                handler.leave()
            }
        }
    }

    static func unwatch(_ channel: any Channel) {
        channel.eventLoop.execute {
            (try? channel.pipeline.syncOperations.handler(type: ClientPresence.self))?.onGone = nil
        }
    }

    private func leave() {
        isGone = true
        let onGone = onGone
        self.onGone = nil
        onGone?()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed = event as? ChannelEvent { leave() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset comes as an error first; that the channel then becomes inactive may wait behind the writes that fail.
        if error is IOError { leave() }
        context.fireErrorCaught(error)
    }
}
