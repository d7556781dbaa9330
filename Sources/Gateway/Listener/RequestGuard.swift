import DequeModule
import NIOCore
import NIOHTTP1

/// A channel handler that checks every request of a connection first: rejects malformed HTTP/1.1, answers `Expect: 100-continue` and limits
/// the time for a body.
///
/// NIO's HTTP decoder only reports a parse error and then stops. After ambiguous framing (request smuggling, RFC 9112, 11.2) no further
/// bytes may be interpreted as a request, so the connection is closed.
final class RequestGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// The body was not received within `bodyTimeout`. Fired into the pipeline as an error.
    struct BodyTimeout: Error {}

    /// What the response to a request depends on.
    private struct Pending {
        /// Its `x-request-id`.
        let id: String
        /// Whether the client knows only HTTP/1.0, and so no chunked bodies (RFC 9112, 6.1).
        let isVersion10: Bool
        /// Whether the connection closes after the response.
        let closes: Bool
    }

    /// Maximum bytes of a rejected request's body that are read and discarded, so that the connection can be reused.
    private static let unreadMaximum = 64 << 10

    private let bodyTimeout: TimeAmount
    /// Reads left until the connection closes, once it has refused further requests.
    private var readsLeft: Int
    private let bodyMaximum: Int
    private let hosts: HostRule
    private var isReadingBody = false
    /// Bytes of the body received since its request was rejected; nil if it was not rejected.
    private var refusedBytes: Int?
    /// The requests whose responses are not complete, in their order.
    private var pending: Deque<Pending> = []
    /// Number of requests whose responses are not complete.
    var unanswered: Int { pending.count }
    /// Whether a request closes the connection, so that further ones are ignored.
    private var isClosing = false
    private var hasRefused = false
    private var timer: Scheduled<Void>?

    /// - Parameters:
    ///   - bodyTimeout: time from a request's head to the end of its body.
    ///   - bodyMaximum: size in bytes above which an announced body gets no `100 Continue`.
    ///   - hosts: the rule for Host headers.
    init(bodyTimeout: Duration, bodyMaximum: Int, hosts: HostRule = .any) {
        self.hosts = hosts
        self.bodyTimeout = TimeAmount(bodyTimeout)
        self.bodyMaximum = bodyMaximum
        readsLeft = bodyMaximum / GatewayChannel.readSize
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasRefused else { return }
        switch unwrapInboundIn(data) {
        case .head(var head):
            guard !isClosing else {
                hasRefused = true
                return
            }
            if let fault = Self.fault(of: head) { return refuse(.malformed(fault), context, head) }
            guard hosts.allows(head.headers["host"]) else { return refuse(.host, context, head) }
            isReadingBody = true
            refusedBytes = nil
            // NIO's decoder stops parsing HTTP after a request to change the protocol.
            if head.method == .CONNECT { head.closesAfterwards() }
            // The end of the connection is the end of a response without a length (RFC 9112, 9.3). A client that asked to keep an HTTP/1.0
            // connection learns from the response that it is closed.
            let isVersion10 = !Self.isVersion11(head)
            if isVersion10 || !head.isKeepAlive {
                isClosing = true
                head.headers.replaceOrAdd(name: "connection", value: "close")
            }
            let id = RequestID.of(head.headers)
            head.headers.replaceOrAdd(name: RequestID.header, value: id)
            pending.append(Pending(id: id, isVersion10: isVersion10, closes: isClosing))
            if head.headers["expect"].contains(where: { $0.lowercased() == "100-continue" }), unanswered == 1, !isVersion10 {
                sendContinue(head, context)
            }
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

    /// Reads and discards at most a body's size after the last response: a client may read it only after it has sent its request.
    func read(context: ChannelHandlerContext) {
        if hasRefused {
            guard readsLeft > 0 else { return }
            readsLeft -= 1
        }
        context.read()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(var head):
            // A rejected request's body is read only up to `unreadMaximum`.
            if isReadingBody, unanswered == 1, head.status.code >= 400 { refusedBytes = 0 }
            guard let request = pending.first else { break }
            head.headers.replaceOrAdd(name: RequestID.header, value: request.id)
            if request.closes { head.headers.replaceOrAdd(name: "connection", value: "close") }
            if request.isVersion10 { head.version = .http1_0 }
            return context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body: break
        case .end: _ = pending.popFirst()
        }
        context.write(data, promise: promise)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard !hasRefused else { return }
        // During a request or its response, the error is forwarded to the handlers that process it.
        guard let error = error as? HTTPParserError, unanswered == 0 else { return context.fireErrorCaught(error) }
        refuse(error == .headerOverflow ? .headTooLarge : .malformed("this is not a valid HTTP request"), context)
    }

    /// Accepts no further requests and closes the connection after pending responses, with a delay so that a TCP reset does not discard them.
    private func end(_ context: ChannelHandlerContext) {
        guard !hasRefused else { return }
        hasRefused = true
        timer?.cancel()
        guard unanswered == 0 else { return context.close(promise: nil) }
        EarlyRefusal.closeAfterAnswer(context.channel, reads: true)
    }

    /// Rejects the request and closes the connection; without a response if an earlier one is incomplete.
    private func refuse(_ refusal: EarlyRefusal, _ context: ChannelHandlerContext, _ head: HTTPRequestHead? = nil) {
        hasRefused = true
        timer?.cancel()
        guard unanswered == 0 else { return context.close(promise: nil) }
        let id = RequestID.of(head?.headers ?? [:])
        refusal.answer(on: context.channel) { part in
            guard case .head(var head) = part else { return context.write(wrapOutboundOut(part), promise: nil) }
            head.headers.replaceOrAdd(name: RequestID.header, value: id)
            context.write(wrapOutboundOut(.head(head)), promise: nil)
        }
    }

    /// Sends `100 Continue` (RFC 9110, 10.1.1), unless the announced body is too large and will be rejected.
    private func sendContinue(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        if let length = head.headers.first(name: "content-length").flatMap({ Int($0) }), length > bodyMaximum { return }
        context.writeAndFlush(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
    }

    /// Whether the request is HTTP/1.1 or later.
    private static func isVersion11(_ head: HTTPRequestHead) -> Bool { head.version.major == 1 && head.version.minor >= 1 }

    /// Describes why a request head cannot be accepted; nil when it can.
    private static func fault(of head: HTTPRequestHead) -> String? {
        // RFC 9112, 3.2
        let hosts = head.headers["host"].count
        if hosts > 1 || hosts == 0 && isVersion11(head) { return "a request must have exactly one Host field" }
        let codings = head.headers["transfer-encoding"]
        // RFC 9112, 6.1: HTTP/1.0 has no transfer codings, so the framing of such a request is faulty.
        if !codings.isEmpty, !isVersion11(head) { return "HTTP/1.0 does not allow Transfer-Encoding" }
        // RFC 9112, 6.3: such framing is ambiguous and allows request smuggling.
        let lengths = head.headers["content-length"].count
        if lengths > 1 || lengths == 1 && !codings.isEmpty {
            return "a request must have at most one of Content-Length and Transfer-Encoding"
        }
        if !codings.isEmpty, codings.count > 1 || codings[0].lowercased() != "chunked" {
            return "this transfer coding is not supported; use chunked"
        }
        return nil
    }
}

extension HTTPRequestHead {
    /// Marks the connection to be closed after this request's response.
    mutating func closesAfterwards() {
        headers.remove(name: "upgrade")
        headers.replaceOrAdd(name: "connection", value: "close")
    }
}

/// The id that a request and its response carry in `x-request-id`.
enum RequestID {
    static let header = "x-request-id"
    /// Maximum length of a client's id, in bytes.
    static let maximumLength = 128

    /// The client's id if it is 1 to `maximumLength` visible ASCII characters, else a new one.
    static func of(_ headers: HTTPHeaders) -> String {
        let given = headers[header]
        if given.count == 1, (1...maximumLength).contains(given[0].utf8.count), given[0].utf8.allSatisfy({ (0x21..<0x7F).contains($0) }) {
            return given[0]
        }
        let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
        return "req_" + String(repeating: "0", count: 16 - digits.count) + digits
    }
}
