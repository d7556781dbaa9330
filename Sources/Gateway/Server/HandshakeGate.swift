import NIOCore
import NIOHTTP1

/// Judges a connection's first request before NIO's upgrade does, and closes a connection on which none comes in time.
///
/// NIO drops the head of a request that asks for an upgrade and does not get it, so such a request never reaches its upgrade handler: a WebSocket that may not be
/// opened is answered here, and any other wish to upgrade is taken out of the head (RFC 9110 section 7.8 lets a server ignore it).
final class HandshakeGate: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let timeout: Duration
    private let judge: (HTTPRequestHead, any Channel) -> UpgradeRefusal?
    private var timer: Scheduled<Void>?
    private var hasRefused = false

    /// - Parameter judge: why this request may not open a WebSocket; nil: it may.
    init(timeout: Duration, judge: @escaping (HTTPRequestHead, any Channel) -> UpgradeRefusal?) {
        self.timeout = timeout
        self.judge = judge
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: .milliseconds(Int64(timeout.milliseconds))) { channel.close(promise: nil) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasRefused else { return }
        timer?.cancel()
        guard case .head(var head) = unwrapInboundIn(data) else { return pass(data, context) }
        guard asksForSocket(head) else {
            guard head.headers.contains(name: "upgrade") else { return pass(data, context) }
            head.headers.remove(name: "upgrade")
            return pass(wrapInboundOut(.head(head)), context)
        }
        guard let refusal = judge(head, context.channel) else { return pass(data, context) }
        refuse(refusal, context)
    }

    private func pass(_ data: NIOAny, _ context: ChannelHandlerContext) {
        context.fireChannelRead(data)
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    /// RFC 6455 section 4.2.1, as strictly as NIO's upgrader looks at it.
    private func asksForSocket(_ head: HTTPRequestHead) -> Bool {
        func words(_ name: String) -> [String] { head.headers[canonicalForm: name].map { $0.lowercased() } }
        return head.method == .GET && GatewayChannel.isSocketPath(head.uri) && words("upgrade").contains("websocket")
            && words("connection").contains("upgrade") && head.headers["sec-websocket-key"].count == 1
            && head.headers["sec-websocket-version"] == ["13"]
    }

    private func refuse(_ refusal: UpgradeRefusal, _ context: ChannelHandlerContext) {
        hasRefused = true
        Refusals.count(.upgrade, code: refusal.code)
        let body = refusal.body
        var headers: HTTPHeaders = ["content-type": "application/json", "content-length": "\(body.count)", "connection": "close"]
        if refusal != .origin { headers.add(name: "retry-after", value: "1") }
        context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: refusal.status, headers: headers))), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in channel.close(promise: nil) }
    }
}
