import NIOCore

/// Receives the end of a link.
protocol LinkOwner: AnyObject {
    /// Called once; the link makes no other calls afterwards.
    func linkEnded(_ link: Link, _ reason: RedisError)
}

/// One connection: parses received bytes into replies and collects writes until the end of the event loop's tick. Used only on its loop.
final class Link: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Writes larger than this many bytes are passed to the channel in a buffer of their own.
    private static let copyMaximum = 32 << 10
    /// A shared buffer with a larger capacity is released after a flush.
    private static let keepMaximum = 1 << 20

    /// Time at which bytes were last received.
    private(set) var lastReceived = NIODeadline.now()
    private(set) var ended: RedisError?
    private let reader: ReplyReader
    private var owner: (any LinkOwner)?
    private var context: ChannelHandlerContext?
    private var outgoing = ByteBuffer()
    private var flushPlanned = false
    private var endAfterRead: RedisError?

    /// - Parameter replyMaximum: maximum bytes of one reply.
    init(owner: any LinkOwner, sink: any ReplySink, replyMaximum: Int) throws(RedisError) {
        self.owner = owner
        reader = try ReplyReader(sink: sink, replyMaximum: replyMaximum)
    }

    /// Replaces the receiver of the replies. Call it only between two replies.
    func use(_ sink: any ReplySink) {
        reader.sink = sink
    }

    /// Queues bytes, to be flushed at the end of the tick. Does nothing after the end of the link.
    func write(_ bytes: [UInt8]) {
        guard ended == nil, let context else { return }
        if bytes.count > Self.copyMaximum {
            writeOutgoing(context)
            outgoing = ByteBuffer()
            context.write(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
        } else {
            outgoing.writeBytes(bytes)
        }
        guard !flushPlanned else { return }
        flushPlanned = true
        context.eventLoop.assumeIsolated().execute { self.flush() }
    }

    func flush() {
        flushPlanned = false
        guard ended == nil, let context else { return }
        writeOutgoing(context)
        context.flush()
        // The socket has usually accepted all bytes by now, so that `clear` can reuse the memory; otherwise it allocates.
        if outgoing.capacity > Self.keepMaximum { outgoing = ByteBuffer() } else { outgoing.clear() }
    }

    private func writeOutgoing(_ context: ChannelHandlerContext) {
        guard outgoing.readableBytes > 0 else { return }
        context.write(wrapOutboundOut(outgoing), promise: nil)
    }

    /// Closes the connection immediately. Bytes that were written and not flushed are lost.
    func end(_ reason: RedisError) {
        guard ended == nil else { return }
        ended = reason
        let owner = owner
        self.owner = nil
        context?.close(promise: nil)
        owner?.linkEnded(self, reason)
    }

    /// Closes the connection after the received replies have been delivered.
    func endAfterReading(_ reason: RedisError) {
        endAfterRead = endAfterRead ?? reason
    }

    // MARK: ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        lastReceived = .now()
        do throws(RedisError) {
            try reader.feed(unwrapInboundIn(data))
            while ended == nil, try reader.next() {}
        } catch {
            end(error)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if let endAfterRead { end(endAfterRead) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(RedisError(.connectionLost, "the server closed the connection"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(RedisError(.connectionLost, failureReason(error)))
    }
}
