import NIOCore

/// Who is told of a link's end.
protocol LinkOwner: AnyObject {
    /// Once, and nothing after it.
    func linkEnded(_ link: Link, _ reason: RedisError)
}

/// One connection: bytes in, replies out, and writes collected until the end of the event loop's tick. Lives on its event loop.
final class Link: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Larger writes go to the socket by themselves instead of being copied into the common buffer.
    private static let copyMaximum = 32 << 10
    /// A common buffer that has grown beyond is given back.
    private static let keepMaximum = 1 << 20

    /// When bytes came in last.
    private(set) var heard = NIODeadline.now()
    private(set) var ended: RedisError?
    private let reader: ReplyReader
    private var owner: (any LinkOwner)?
    private var context: ChannelHandlerContext?
    private var outgoing = ByteBuffer()
    private var flushPlanned = false
    private var endAfterRead: RedisError?

    /// - Parameter replyMaximum: bytes of one reply.
    init(owner: any LinkOwner, sink: any ReplySink, replyMaximum: Int) throws(RedisError) {
        self.owner = owner
        reader = try ReplyReader(sink: sink, replyMaximum: replyMaximum)
    }

    /// Who gets the replies from here on. To be changed between replies only.
    func use(_ sink: any ReplySink) {
        reader.sink = sink
    }

    func write(_ buffer: ByteBuffer) {
        guard ended == nil, let context else { return }
        if buffer.readableBytes > Self.copyMaximum {
            writeOutgoing(context)
            outgoing = ByteBuffer()
            context.write(wrapOutboundOut(buffer), promise: nil)
        } else {
            outgoing.writeImmutableBuffer(buffer)
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
        // The socket has most often taken everything by now, and `clear` finds the memory its own again; else it makes new.
        if outgoing.capacity > Self.keepMaximum { outgoing = ByteBuffer() } else { outgoing.clear() }
    }

    private func writeOutgoing(_ context: ChannelHandlerContext) {
        guard outgoing.readableBytes > 0 else { return }
        context.write(wrapOutboundOut(outgoing), promise: nil)
    }

    /// Closes at once. What was written and not flushed is lost.
    func end(_ reason: RedisError) {
        guard ended == nil else { return }
        ended = reason
        let owner = owner
        self.owner = nil
        context?.close(promise: nil)
        owner?.linkEnded(self, reason)
    }

    /// Closes once the replies that have arrived are handed on.
    func endAfterReading(_ reason: RedisError) {
        endAfterRead = endAfterRead ?? reason
    }

    // MARK: ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        heard = .now()
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
