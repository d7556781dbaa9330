import JSONCodec
import NIOCore
import NIOPosix
import OperatorTools

/// Direct HTTP calls to the simulator on one keep-alive connection: the baseline of the measured paths.
struct DirectCall: Sendable {
    private let channel: any Channel
    private let address: ListenAddress

    /// Connects to the simulator.
    /// - Parameters:
    ///   - index: the reader's stream for the answers.
    ///   - reader: runs on the same event loop.
    static func open(to address: ListenAddress, index: Int, reader: StreamReader, eventLoop: any EventLoop) async throws -> DirectCall {
        let channel = try await ClientBootstrap(group: eventLoop)
            .connectTimeout(.seconds(2))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(DirectCallHandler(index: index, reader: reader))
                }
            }
            .connect(host: address.host, port: address.port).get()
        return DirectCall(channel: channel, address: address)
    }

    /// Sends a request.
    /// - Parameter tag: the request's name in the simulator's list.
    func ask(_ model: SimulatedModel, tag: String) {
        var request = model.request(tag: tag)
        request["stream"] = true
        let body = JSON.object(request).bytes
        var bytes = ByteBuffer(
            string:
                "POST /v1/chat/completions HTTP/1.1\r\nHost: \(address)\r\nContent-Type: application/json\r\nContent-Length: \(body.count)\r\n\r\n"
        )
        bytes.writeBytes(body)
        channel.writeAndFlush(bytes, promise: nil)
    }

    func close() async { try? await channel.close() }
}

/// Passes the tokens and ends of answers to the reader. Runs on the channel's event loop.
private final class DirectCallHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let index: Int
    private let reader: StreamReader

    init(index: Int, reader: StreamReader) {
        self.index = index
        self.reader = reader
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let (index, reader) = (index, reader)
        let buffer = unwrapInboundIn(data)
        let tokens = TokenScan.tokens(in: buffer.readableBytesUInt8Span)
        let isLast = TokenScan.contains("[DONE]", in: buffer.readableBytesUInt8Span)
        reader.assumeIsolated { $0.received(index, tokens: tokens, isLast: isLast) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
