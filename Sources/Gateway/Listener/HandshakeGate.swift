import NIOCore
import NIOHTTP1

/// Judges a connection's first request before NIO's upgrade does, and closes a connection on which none comes in time.
///
/// NIO drops the head of a request that asks for an upgrade and does not get it, so such a request never reaches its upgrade handler: a
/// WebSocket that may not be opened is answered here, and any other wish to upgrade is taken out of the head (RFC 9110 section 7.8 lets a
/// server ignore it). After such a request the decoder reads no further ones: its answer is the connection's last.
final class HandshakeGate: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let timeout: Duration
    private let requests: RequestGuard
    private let judge: (HTTPRequestHead, any Channel) -> EarlyRefusal?
    private var timer: Scheduled<Void>?
    private var hasRefused = false

    /// - Parameters:
    ///   - requests: what guards the connection while it speaks HTTP.
    ///   - judge: why this request may not open a WebSocket; nil: it may.
    init(timeout: Duration, requests: RequestGuard, judge: @escaping (HTTPRequestHead, any Channel) -> EarlyRefusal?) {
        self.timeout = timeout
        self.requests = requests
        self.judge = judge
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: .milliseconds(Int64(timeout.milliseconds))) {
            Refusals.count(.upgrade, code: "handshake_timeout")
            channel.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasRefused else { return }
        timer?.cancel()
        guard case .head(var head) = unwrapInboundIn(data) else { return pass(data, context) }
        guard asksForSocket(head) else {
            guard head.headers.contains(name: "upgrade") else { return pass(data, context) }
            head.closesAfterwards()
            return pass(wrapInboundOut(.head(head)), context)
        }
        // NIO would fail at the body, after the answer that nothing follows.
        let length = head.headers.first(name: "content-length") ?? "0"
        let hasBody = head.headers.contains(name: "transfer-encoding") || length != "0"
        let fault = hasBody ? EarlyRefusal.malformed("a request for a WebSocket has no body") : nil
        guard let refusal = fault ?? judge(head, context.channel) else {
            // Now, as frames that came with the head leave the HTTP decoder before the pipeline is the WebSocket's.
            context.pipeline.syncOperations.removeHandler(requests, promise: nil)
            return pass(data, context)
        }
        hasRefused = true
        refusal.answer(on: context.channel) { context.write(wrapOutboundOut($0), promise: nil) }
    }

    private func pass(_ data: NIOAny, _ context: ChannelHandlerContext) {
        context.fireChannelRead(data)
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    /// RFC 6455 section 4.2.1, as strictly as NIO's upgrader looks at it; and the key is base64 of 16 bytes.
    private func asksForSocket(_ head: HTTPRequestHead) -> Bool {
        func words(_ name: String) -> [String] { head.headers[canonicalForm: name].map { $0.lowercased() } }
        let keys = head.headers["sec-websocket-key"]
        return head.method == .GET && GatewayChannel.isSocketPath(head.uri) && words("upgrade").contains("websocket")
            && words("connection").contains("upgrade") && keys.count == 1 && keys[0].utf8.count == 24 && keys[0].hasSuffix("==")
            && head.headers["sec-websocket-version"] == ["13"]
    }
}
