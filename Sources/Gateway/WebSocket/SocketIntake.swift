import NIOCore
import NIOWebSocket

/// Stands between the network and the decoder of frames: counts bytes before anything is made of them, and reads no further while the
/// socket's account is in debt.
final class SocketIntake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    /// Bytes of one read. Small, since so much of each of many sockets may come at once and be held.
    private static let readSize = 16 << 10

    private let socket: AgentSocket
    /// Read, but not passed on while the account is in debt.
    private var waiting: [ByteBuffer] = []
    private var resumption: Scheduled<Void>?

    init(_ socket: AgentSocket) { self.socket = socket }

    func handlerAdded(context: ChannelHandlerContext) {
        set(ChannelOptions.recvAllocator, FixedSizeRecvByteBufferAllocator(capacity: Self.readSize), context)
        set(ChannelOptions.maxMessagesPerRead, 1, context)
    }

    private func set<Option: ChannelOption>(_ option: Option, _ value: Option.Value, _ context: ChannelHandlerContext) {
        do { try context.channel.syncOptions?.setOption(option, value: value) } catch { context.fireErrorCaught(error) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { drop() }

    func channelInactive(context: ChannelHandlerContext) {
        drop()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard socket.takes(bytes: buffer.readableBytes) else { return }
        guard waiting.isEmpty, socket.account.debt == 0 else {
            waiting.append(buffer)
            return wait(context)
        }
        pass(buffer, context)
    }

    private func pass(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        let count = buffer.readableBytes
        context.fireChannelRead(wrapInboundOut(buffer))
        socket.passed(bytes: count)
    }

    private func wait(_ context: ChannelHandlerContext) {
        guard resumption == nil else { return }
        set(ChannelOptions.autoRead, false, context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        resumption = context.eventLoop.scheduleTask(in: .milliseconds(Int64(max(1, socket.account.debt)))) {
            let (intake, context) = bound.value
            intake.resume(context)
        }
    }

    private func resume(_ context: ChannelHandlerContext) {
        resumption = nil
        while !waiting.isEmpty {
            guard socket.account.debt == 0 else { return wait(context) }
            pass(waiting.removeFirst(), context)
        }
        set(ChannelOptions.autoRead, true, context)
    }

    private func drop() {
        waiting = []
        resumption?.cancel()
        resumption = nil
    }
}
