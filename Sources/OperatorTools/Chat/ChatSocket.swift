import JSONCodec
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOWebSocket

/// A client's WebSocket connection to a gateway. Its methods may be called from any thread.
package struct ChatSocket: Sendable {
    /// An event of the connection.
    enum Event: Sendable {
        case message(JSON)
        /// The last event. `code` is nil when the connection was lost without a close frame.
        case closed(code: Int?, reason: String)
    }

    /// The server did not upgrade to WebSocket.
    struct Refused: Error, CustomStringConvertible {
        let description = "the server did not upgrade to WebSocket; check that this is a gateway's address"
    }

    /// Bytes.
    private static let maximumMessage = 64 << 20

    private let channel: any Channel

    /// Connects and upgrades to WebSocket.
    /// - Parameter receive: called with the events in order, on the channel's event loop.
    /// - Throws: when the connection fails or takes longer than 5 s, or when the server does not upgrade.
    static func connect(to address: ChatAddress, receive: @escaping @Sendable (Event) -> Void) async throws -> ChatSocket {
        let channel = try await open(to: address, group: MultiThreadedEventLoopGroup.singleton) { ChatSocketHandler(receive: receive) }
        return ChatSocket(channel: channel)
    }

    /// Connects and upgrades to WebSocket. The handler receives complete messages as `WebSocketFrame`.
    package static func open(
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
                        // A host name is verified and sent as SNI. SNI does not permit IP addresses.
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

    /// Sends a message. It is dropped when the socket is closed; `Event.closed` reports that.
    func send(_ message: JSON) {
        let bytes = ByteBuffer(bytes: message.bytes)
        channel.writeAndFlush(WebSocketFrame(fin: true, opcode: .text, maskKey: .random(), data: bytes), promise: nil)
    }

    /// Sends a close frame and closes the connection.
    func close() async {
        var code = channel.allocator.buffer(capacity: 2)
        code.write(webSocketErrorCode: .normalClosure)
        do {
            try await channel.writeAndFlush(WebSocketFrame(fin: true, opcode: .connectionClose, maskKey: .random(), data: code))
            try await channel.close()
        } catch {
            // The connection was closed already.
            channel.close(promise: nil)
        }
    }
}

/// Turns frames into events. Runs on the channel's event loop.
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
            // Messages that are not JSON violate the protocol and are ignored.
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
        closed(nil, "the connection was lost")
        context.fireChannelInactive()
    }

    /// Reports the end of the connection once.
    private func closed(_ code: Int?, _ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        receive(.closed(code: code, reason: reason))
    }
}
