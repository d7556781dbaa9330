import NIOCore
import NIOHTTP1

/// A channel handler that checks a connection's first request before NIO's upgrade handler, and closes the connection if no request
/// arrives within the handshake timeout.
///
/// NIO drops the head of a request whose upgrade is rejected. This handler therefore responds to rejected WebSocket upgrades itself, and
/// removes any other `Upgrade` field from the head (RFC 9110, 7.8 allows a server to ignore it). NIO's decoder reads no requests after an
/// upgrade request, so the connection is closed after the response.
final class HandshakeGate: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let timeout: Duration
    private let requests: RequestGuard
    private let isSocketPath: (String) -> Bool
    private let judge: (HTTPRequestHead, any Channel) -> EarlyRefusal?
    private var timer: Scheduled<Void>?
    private var hasRefused = false

    /// - Parameters:
    ///   - timeout: time from the connection to its first request.
    ///   - requests: the guard of the HTTP connection; it is removed before an upgrade.
    ///   - isSocketPath: whether a request target is a path of the WebSocket.
    ///   - judge: returns the reason to reject a WebSocket upgrade; nil to allow it.
    init(
        timeout: Duration, requests: RequestGuard, isSocketPath: @escaping (String) -> Bool,
        judge: @escaping (HTTPRequestHead, any Channel) -> EarlyRefusal?
    ) {
        self.timeout = timeout
        self.requests = requests
        self.isSocketPath = isSocketPath
        self.judge = judge
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: TimeAmount(timeout)) {
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
        // NIO's upgrade handler fails when a body follows the upgrade request.
        let length = head.headers.first(name: "content-length") ?? "0"
        let hasBody = head.headers.contains(name: "transfer-encoding") || length != "0"
        let fault = hasBody ? EarlyRefusal.malformed("a WebSocket upgrade request must not have a body") : nil
        guard let refusal = fault ?? judge(head, context.channel) else {
            // Remove the guard now: frames received together with the head leave the HTTP decoder before the pipeline is changed.
            context.pipeline.syncOperations.removeHandler(requests, promise: nil)
            return pass(data, context)
        }
        hasRefused = true
        refusal.answer(on: context.channel) { context.write(wrapOutboundOut($0), promise: nil) }
    }

    /// Forwards the request and removes this handler.
    private func pass(_ data: NIOAny, _ context: ChannelHandlerContext) {
        context.fireChannelRead(data)
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    /// Whether the request is a WebSocket upgrade (RFC 6455, 4.2.1). At least as strict as NIO's upgrader; also requires that the key has
    /// the length of 16 bytes in base64.
    private func asksForSocket(_ head: HTTPRequestHead) -> Bool {
        func words(_ name: String) -> [String] { head.headers[canonicalForm: name].map { $0.lowercased() } }
        let keys = head.headers["sec-websocket-key"]
        return head.method == .GET && isSocketPath(head.uri) && words("upgrade").contains("websocket")
            && words("connection").contains("upgrade") && keys.count == 1 && keys[0].utf8.count == 24 && keys[0].hasSuffix("==")
            && head.headers["sec-websocket-version"] == ["13"]
    }
}
