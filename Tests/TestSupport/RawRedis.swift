import NIOCore
import NIOPosix
import Synchronization

/// A RESP reply.
package indirect enum RawReply: Sendable, Hashable, CustomStringConvertible {
    case null
    case simple(String)
    case error(String)
    case integer(Int)
    case bulk(String)
    case array([RawReply])

    /// A simple or bulk string, or a number in digits.
    package var string: String? {
        switch self {
        case .simple(let text), .bulk(let text): text
        case .integer(let number): String(number)
        case .null, .error, .array: nil
        }
    }
    package var integer: Int? { string.flatMap { Int($0) } }
    package var array: [RawReply]? { if case .array(let elements) = self { elements } else { nil } }
    /// The fields of a flat array of names and values, as in HGETALL and stream entries.
    package var fields: [String: String] {
        let texts = (array ?? []).map { $0.string ?? "" }
        return Dictionary(stride(from: 0, to: texts.count - 1, by: 2).map { (texts[$0], texts[$0 + 1]) }, uniquingKeysWith: { $1 })
    }

    package var description: String {
        switch self {
        case .null: "(nil)"
        case .simple(let text): text
        case .error(let text): "(error) \(text)"
        case .integer(let number): "(integer) \(number)"
        case .bulk(let text): "\"\(text)\""
        case .array(let elements): "\(elements)"
        }
    }
}

package struct RawRedisError: Error, CustomStringConvertible {
    package let description: String

    package init(description: String) { self.description = description }
}

/// A plain connection to Redis that shares no code with the product, so that tests check results independently.
package final class RawRedis: Sendable {
    private let channel: any Channel
    private let handler: NIOLoopBound<Conversation>

    package static func connect(port: Int) async throws -> RawRedis {
        try await connect { bootstrap in bootstrap.connect(host: "127.0.0.1", port: port) }
    }

    package static func connect(unix path: String) async throws -> RawRedis {
        try await connect { bootstrap in bootstrap.connect(unixDomainSocketPath: path) }
    }

    private static func connect(_ connect: (ClientBootstrap) -> EventLoopFuture<any Channel>) async throws -> RawRedis {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(.seconds(120))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(ByteToMessageHandler(ReplyDecoder()), Conversation())
                }
            }
        let channel = try await connect(bootstrap).get()
        let handler = try await channel.eventLoop.submit {
            NIOLoopBound(try channel.pipeline.syncOperations.handler(type: Conversation.self), eventLoop: channel.eventLoop)
        }.get()
        return RawRedis(channel: channel, handler: handler)
    }

    private init(channel: any Channel, handler: NIOLoopBound<Conversation>) {
        self.channel = channel
        self.handler = handler
    }

    /// Sends one command. An error reply is returned, not thrown.
    /// - Throws: when the connection is lost.
    @discardableResult
    package func send(_ arguments: [String]) async throws -> RawReply {
        try await channel.eventLoop.flatSubmit { [channel, handler] in
            let promise = channel.eventLoop.makePromise(of: RawReply.self)
            handler.value.waiting.append(promise)
            channel.writeAndFlush(Self.command(arguments, channel.allocator)).cascadeFailure(to: promise)
            return promise.futureResult
        }.get()
    }

    @discardableResult
    package func send(_ arguments: String...) async throws -> RawReply { try await send(arguments) }

    package func close() async {
        // The connection may be closed already.
        try? await channel.close()
    }

    fileprivate static func command(_ arguments: [String], _ allocator: ByteBufferAllocator) -> ByteBuffer {
        var buffer = allocator.buffer(capacity: 64)
        buffer.writeString("*\(arguments.count)\r\n")
        for argument in arguments { buffer.writeString("$\(argument.utf8.count)\r\n\(argument)\r\n") }
        return buffer
    }

    /// Subscribes this connection, which cannot send other commands afterwards. Returns when Redis has confirmed the subscription.
    /// - Returns: the messages; the stream ends with the connection.
    package func subscribe(_ channels: String...) async throws -> AsyncStream<RawMessage> {
        let (stream, continuation) = AsyncStream.makeStream(of: RawMessage.self)
        try await channel.eventLoop.flatSubmit { [channel, handler] in
            let promise = channel.eventLoop.makePromise(of: Void.self)
            handler.value.listen(continuation, confirmations: channels.count, promise)
            channel.writeAndFlush(Self.command(["SUBSCRIBE"] + channels, channel.allocator)).cascadeFailure(to: promise)
            return promise.futureResult
        }.get()
        return stream
    }
}

package struct RawMessage: Sendable, Hashable {
    package let channel: String
    package let text: String
}

/// Delivers replies to commands in order, and messages of subscriptions to their stream.
private final class Conversation: ChannelInboundHandler {
    typealias InboundIn = RawReply
    var waiting: [EventLoopPromise<RawReply>] = []
    private var listener: AsyncStream<RawMessage>.Continuation?
    private var confirmations = 0
    private var confirmed: EventLoopPromise<Void>?
    private var gone = false

    func listen(_ listener: AsyncStream<RawMessage>.Continuation, confirmations: Int, _ promise: EventLoopPromise<Void>) {
        guard !gone else { return promise.fail(RawRedisError(description: "the connection is closed")) }
        self.listener = listener
        self.confirmations = confirmations
        confirmed = promise
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let reply = unwrapInboundIn(data)
        if let parts = reply.array, let listener, parts.count == 3 {
            switch parts[0].string {
            case "message": listener.yield(RawMessage(channel: parts[1].string ?? "", text: parts[2].string ?? ""))
            case "subscribe":
                confirmations -= 1
                if confirmations == 0 { confirmed?.succeed() }
            default: break
            }
            return
        }
        guard !waiting.isEmpty else { return }
        waiting.removeFirst().succeed(reply)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        gone = true
        let error = RawRedisError(description: "Redis closed the connection")
        for promise in waiting { promise.fail(error) }
        waiting = []
        confirmed?.fail(error)
        listener?.finish()
        context.fireChannelInactive()
    }
}

private struct ReplyDecoder: ByteToMessageDecoder {
    typealias InboundOut = RawReply

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        var attempt = buffer
        guard let reply = try Self.reply(&attempt) else { return .needMoreData }
        buffer = attempt
        context.fireChannelRead(wrapInboundOut(reply))
        return .continue
    }

    mutating func decodeLast(context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool) throws -> DecodingState {
        try decode(context: context, buffer: &buffer)
    }

    private static func line(_ buffer: inout ByteBuffer) -> String? {
        guard let end = buffer.readableBytesView.firstIndex(of: UInt8(ascii: "\r")), end + 1 < buffer.writerIndex else { return nil }
        let text = buffer.readString(length: end - buffer.readerIndex)
        buffer.moveReaderIndex(forwardBy: 2)
        return text
    }

    private static func reply(_ buffer: inout ByteBuffer) throws -> RawReply? {
        guard let line = line(&buffer), let kind = line.first else { return nil }
        let rest = String(line.dropFirst())
        switch kind {
        case "+": return .simple(rest)
        case "-": return .error(rest)
        case ":": return .integer(Int(rest) ?? 0)
        case "$":
            guard let length = Int(rest), length >= 0 else { return .null }
            guard buffer.readableBytes >= length + 2, let text = buffer.readString(length: length) else { return nil }
            buffer.moveReaderIndex(forwardBy: 2)
            return .bulk(text)
        case "*":
            guard let count = Int(rest), count >= 0 else { return .null }
            var elements: [RawReply] = []
            for _ in 0..<count {
                guard let element = try reply(&buffer) else { return nil }
                elements.append(element)
            }
            return .array(elements)
        default: throw RawRedisError(description: "not RESP: \(line.prefix(80))")
        }
    }
}
