import NIOCore
import NIOHTTP1

/// Looks at every request of a connection before anybody else does: refuses what is no HTTP/1.1 that could be served, answers `Expect`,
/// bounds the time of a body.
///
/// The HTTP decoder only reports an error and then falls silent, and what follows a framing that two readers may take in two ways (RFC 9112
/// section 11.2) must never be taken for a request.
final class RequestGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// A body did not come in time.
    struct BodyTimeout: Error {}

    /// Bytes of a body that are still read after its request was refused, so that the connection can serve the next one.
    private static let unreadMaximum = 64 << 10

    private let bodyTimeout: TimeAmount
    private let bodyMaximum: Int
    private let hosts: HostRule
    private var isReadingBody = false
    /// Bytes of the body that came after its request was refused; nil: it was not.
    private var refusedBytes: Int?
    /// Requests whose responses are not written to their end.
    private var unanswered = 0
    private var isFirst = true
    private var hasRefused = false
    private var timer: Scheduled<Void>?

    /// - Parameter bodyMaximum: bytes beyond which a body that is announced is not asked for.
    init(bodyTimeout: Duration, bodyMaximum: Int, hosts: HostRule = .any) {
        self.hosts = hosts
        self.bodyTimeout = .milliseconds(Int64(bodyTimeout.milliseconds))
        self.bodyMaximum = bodyMaximum
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasRefused else { return }
        switch unwrapInboundIn(data) {
        case .head(var head):
            if let fault = Self.fault(of: head) { return refuse(.malformed(fault), context) }
            guard hosts.allows(head.headers["host"]) else { return refuse(.host, context) }
            unanswered += 1
            isReadingBody = true
            refusedBytes = nil
            // NIO's decoder takes nothing after a request to change the protocol for HTTP. Of the first one the handshake gate decides.
            if head.method == .CONNECT || !isFirst && head.headers.contains(name: "upgrade") { head.closesAfterwards() }
            isFirst = false
            // What such a client takes for the end of a response is that of the connection (RFC 9112, 9.3).
            if !Self.isModern(head), !head.isKeepAlive { head.closesAfterwards() }
            if head.headers["expect"].contains(where: { $0.lowercased() == "100-continue" }), unanswered == 1 { goOn(head, context) }
            let channel = context.channel
            timer = context.eventLoop.scheduleTask(in: bodyTimeout) { channel.pipeline.fireErrorCaught(BodyTimeout()) }
            context.fireChannelRead(wrapInboundOut(.head(head)))
        case .body(let bytes):
            guard let refusedBytes else { return context.fireChannelRead(data) }
            self.refusedBytes = refusedBytes + bytes.readableBytes
            if refusedBytes + bytes.readableBytes > Self.unreadMaximum { return end(context) }
            context.fireChannelRead(data)
        case .end:
            isReadingBody = false
            timer?.cancel()
            context.fireChannelRead(data)
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(let head):
            // What is refused while its body still comes is not read to its end.
            if isReadingBody, unanswered == 1, head.status.code >= 400 { refusedBytes = 0 }
        case .body: break
        case .end: unanswered -= 1
        }
        context.write(data, promise: promise)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard !hasRefused else { return }
        // Within a request, or while one is answered, it is for those who are at it.
        guard let error = error as? HTTPParserError, unanswered == 0 else { return context.fireErrorCaught(error) }
        refuse(error == .headerOverflow ? .headTooLarge : .malformed("this cannot be read as a request"), context)
    }

    /// Ends the connection without reading on, a little later, so that an answer on its way is not lost to a reset.
    private func end(_ context: ChannelHandlerContext) {
        guard !hasRefused else { return }
        hasRefused = true
        timer?.cancel()
        guard unanswered == 0 else { return context.close(promise: nil) }
        EarlyRefusal.closeAfterAnswer(context.channel)
    }

    private func refuse(_ refusal: EarlyRefusal, _ context: ChannelHandlerContext) {
        hasRefused = true
        timer?.cancel()
        guard unanswered == 0 else { return context.close(promise: nil) }
        refusal.answer(on: context.channel) { context.write(wrapOutboundOut($0), promise: nil) }
    }

    /// RFC 9110, 10.1.1. One whose body is too large gets its answer instead.
    private func goOn(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        if let length = head.headers.first(name: "content-length").flatMap({ Int($0) }), length > bodyMaximum { return }
        context.writeAndFlush(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
    }

    private static func isModern(_ head: HTTPRequestHead) -> Bool { head.version.major == 1 && head.version.minor >= 1 }

    private static func fault(of head: HTTPRequestHead) -> String? {
        // RFC 9112, 3.2
        let hosts = head.headers["host"].count
        if hosts > 1 || hosts == 0 && isModern(head) { return "a request needs one Host" }
        let codings = head.headers["transfer-encoding"]
        // RFC 9112, 6.1: HTTP/1.0 has no transfer codings, so the framing of such a request is faulty.
        if !codings.isEmpty, !isModern(head) { return "HTTP/1.0 has no transfer coding" }
        // RFC 9112, 6.3: two readers may take such a request for two different ones.
        let lengths = head.headers["content-length"].count
        if lengths > 1 || lengths == 1 && !codings.isEmpty { return "a request has one Content-Length or a transfer coding" }
        if !codings.isEmpty, codings.count > 1 || codings[0].lowercased() != "chunked" { return "this transfer coding is not understood" }
        return nil
    }
}

extension HTTPRequestHead {
    /// Its response will be the connection's last.
    mutating func closesAfterwards() {
        headers.remove(name: "upgrade")
        headers.replaceOrAdd(name: "connection", value: "close")
    }
}
