import NIOCore
import NIOWebSocket

/// Channel handler before the frame decoder. Counts the received bytes, and stops reading while the socket's account is in debt. Confined
/// to the event loop.
final class SocketIntake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let socket: ClientSocket
    /// Buffers read but not yet forwarded, because the account is in debt.
    private var delayedBuffers: [ByteBuffer] = []
    private var resumption: Scheduled<Void>?

    init(_ socket: ClientSocket) { self.socket = socket }

    /// Sets a channel option; a failure is reported to the channel as an error.
    private func set<Option: ChannelOption>(_ option: Option, _ value: Option.Value, _ context: ChannelHandlerContext) {
        do { try context.channel.syncOptions?.setOption(option, value: value) } catch { context.fireErrorCaught(error) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { discard() }

    func channelInactive(context: ChannelHandlerContext) {
        discard()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard socket.takes(bytes: buffer.readableBytes) else { return }
        guard delayedBuffers.isEmpty, socket.account.debt == 0 else {
            delayedBuffers.append(buffer)
            return pauseReading(context)
        }
        forward(buffer, context)
    }

    /// Passes a buffer to the decoder, then updates the socket's account.
    private func forward(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        let count = buffer.readableBytes
        context.fireChannelRead(wrapInboundOut(buffer))
        socket.passed(bytes: count)
    }

    /// Stops reading until the account's debt is paid.
    private func pauseReading(_ context: ChannelHandlerContext) {
        guard resumption == nil else { return }
        set(ChannelOptions.autoRead, false, context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        resumption = context.eventLoop.scheduleTask(in: .milliseconds(Int64(max(1, socket.account.debt)))) {
            let (intake, context) = bound.value
            intake.resume(context)
        }
    }

    /// Forwards delayed buffers and starts reading again, or pauses again when the account goes back into debt.
    private func resume(_ context: ChannelHandlerContext) {
        resumption = nil
        while !delayedBuffers.isEmpty {
            guard socket.account.debt == 0 else { return pauseReading(context) }
            forward(delayedBuffers.removeFirst(), context)
        }
        set(ChannelOptions.autoRead, true, context)
    }

    /// Drops the delayed buffers and the scheduled resumption, when the channel closes.
    private func discard() {
        delayedBuffers = []
        resumption?.cancel()
        resumption = nil
    }
}
