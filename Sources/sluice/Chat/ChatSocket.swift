import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOWebSocket

/// One WebSocket to a gateway.
struct ChatSocket: Sendable {
    enum Event: Sendable {
        case message(JSON)
        /// The last event. `code` is nil when the connection broke without a close frame.
        case closed(code: Int?, reason: String)
    }

    struct Refused: Error, CustomStringConvertible {
        let description = "the answer was no WebSocket: is it a gateway's address?"
    }

    private static let maximumMessage = 64 << 20

    private let channel: any Channel

    /// - Parameter receive: called on the socket's loop, in order.
    /// - Throws: when nobody answers within 5 s, or not as a gateway.
    static func connect(to address: ChatAddress, receive: @escaping @Sendable (Event) -> Void) async throws -> ChatSocket {
        let channel = try await open(to: address, group: MultiThreadedEventLoopGroup.singleton) { ChatSocketHandler(receive: receive) }
        return ChatSocket(channel: channel)
    }

    /// Upgrades to a WebSocket whose whole messages go to a handler, as `WebSocketFrame`.
    static func open(
        to address: ChatAddress, group: any EventLoopGroup, handler: @escaping @Sendable () -> any ChannelHandler
    ) async throws -> any Channel {
        let upgrader = NIOTypedWebSocketClientUpgrader<any Channel>(maxFrameSize: maximumMessage) { channel, _ in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandlers(
                    NIOWebSocketFrameAggregator(
                        minNonFinalFragmentSize: 0, maxAccumulatedFrameCount: 10_000, maxAccumulatedFrameSize: maximumMessage),
                    handler())
                return channel
            }
        }
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: address.path, headers: ["host": address.authority])
        let tls = address.isSecure ? try NIOSSLContext(configuration: .makeClientConfiguration()) : nil
        let upgrade = try await ClientBootstrap(group: group)
            .connectTimeout(.seconds(5))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .connect(host: address.host, port: address.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        // A name is verified, and sent so that the server finds its certificate; an address cannot be sent.
                        let isName = (try? SocketAddress(ipAddress: address.host, port: 0)) == nil
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: isName ? address.host : nil))
                    }
                    let upgrade = NIOTypedHTTPClientUpgradeConfiguration<any Channel>(upgradeRequestHead: head, upgraders: [upgrader]) {
                        channel in
                        channel.close(promise: nil)
                        return channel.eventLoop.makeFailedFuture(Refused())
                    }
                    return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(
                        configuration: .init(upgradeConfiguration: upgrade))
                }
            }
        return try await upgrade.get()
    }

    /// What is sent on a closed socket is lost; `closed` tells.
    func send(_ message: JSON) {
        let bytes = ByteBuffer(bytes: message.bytes)
        channel.writeAndFlush(WebSocketFrame(fin: true, opcode: .text, maskKey: .random(), data: bytes), promise: nil)
    }

    /// Says goodbye and closes.
    func close() async {
        var code = channel.allocator.buffer(capacity: 2)
        code.write(webSocketErrorCode: .normalClosure)
        do {
            try await channel.writeAndFlush(WebSocketFrame(fin: true, opcode: .connectionClose, maskKey: .random(), data: code))
            try await channel.close()
        } catch {
            // It was closed already: that is all that was wanted.
            channel.close(promise: nil)
        }
    }
}

private final class ChatSocketHandler: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    private let receive: @Sendable (ChatSocket.Event) -> Void
    private var isClosed = false

    init(receive: @escaping @Sendable (ChatSocket.Event) -> Void) {
        self.receive = receive
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var frame = unwrapInboundIn(data)
        switch frame.opcode {
        case .text:
            // What is no JSON is not the protocol's: nothing can be said about it but that it came.
            if let json = try? JSON(parsing: frame.unmaskedData.readableBytesView) { receive(.message(json)) }
        case .ping:
            context.writeAndFlush(
                wrapOutboundOut(WebSocketFrame(fin: true, opcode: .pong, maskKey: .random(), data: frame.unmaskedData)), promise: nil)
        case .connectionClose:
            let code = frame.data.readInteger(as: UInt16.self).map(Int.init)
            closed(code, frame.data.readString(length: frame.data.readableBytes) ?? "")
            context.close(promise: nil)
        default: break
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        closed(nil, "\(error)")
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        closed(nil, "the connection broke")
        context.fireChannelInactive()
    }

    private func closed(_ code: Int?, _ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        receive(.closed(code: code, reason: reason))
    }
}
