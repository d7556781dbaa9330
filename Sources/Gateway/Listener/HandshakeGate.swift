import Logging
import NIOCore
import NIOHTTP1
import NIOWebSocket

/// A channel handler that upgrades a connection to a WebSocket at the first request that asks for it, or passes its requests to the router.
/// It closes a connection whose first request does not arrive within the handshake timeout.
///
/// NIO's upgrade handler accepts only the first request of a connection, and drops the head of a request whose upgrade is rejected. Proxies
/// reuse connections, so this handler adds NIO's for each upgrade that is allowed, and responds to rejected ones itself. It removes any
/// other `Upgrade` field from the head (RFC 9110, 7.8 allows a server to ignore it). NIO's decoder reads no requests after one with that
/// field, so the connection is closed after the response.
final class HandshakeGate: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart
    private typealias UpgradeHandler = NIOTypedHTTPServerUpgradeHandler<GatewayChannel.Negotiated>

    private enum State {
        /// No request was received. Next: `serving`, `upgrading`, `refused`.
        case waiting
        /// Requests are passed to the router. Next: `holding`, `upgrading`, `refused`.
        case serving
        /// An upgrade request waits for the responses before it. Next: `authenticating`, `upgrading`, `refused`.
        case holding(HTTPRequestHead, isComplete: Bool)
        /// The client of an upgrade request is being authenticated. Next: `upgrading`, `refused`.
        case authenticating(isComplete: Bool)
        /// NIO's handler upgrades the connection and removes this one. Final.
        case upgrading
        /// The connection is being closed; nothing more is read. Final.
        case refused
    }

    /// Completed with the protocol of the connection's first request. Fails when there is none.
    private let negotiated: EventLoopPromise<GatewayChannel.Negotiated>
    private let gateway: GatewayChannel
    private let timeout: Duration
    private let encoder: HTTPResponseEncoder
    private let decoder: any RemovableChannelHandler
    private let requests: RequestGuard
    private let logger: Logger
    private var httpHandlers: [any RemovableChannelHandler] = []
    private var state = State.waiting
    private var timer: Scheduled<Void>?

    /// - Parameters:
    ///   - gateway: decides about upgrades and adds the handlers of both protocols.
    ///   - timeout: time from the connection to its first request.
    ///   - encoder: the HTTP encoder; it is removed at an upgrade, as are `decoder` and `requests`.
    init(
        _ gateway: GatewayChannel, timeout: Duration, encoder: HTTPResponseEncoder, decoder: any RemovableChannelHandler,
        requests: RequestGuard, negotiated: EventLoopPromise<GatewayChannel.Negotiated>, logger: Logger
    ) {
        self.gateway = gateway
        self.timeout = timeout
        self.encoder = encoder
        self.decoder = decoder
        self.requests = requests
        self.negotiated = negotiated
        self.logger = logger
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: TimeAmount(timeout)) {
            Refusals.count(.upgrade, code: "handshake_timeout")
            channel.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer?.cancel()
        // An upgrade has completed the promise, or completes it after this handler is removed.
        if case .upgrading = state { return }
        state = .refused
        negotiated.fail(ChannelError.ioOnClosedChannel)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (state, unwrapInboundIn(data)) {
        case (.refused, _): break
        case (.upgrading, _): context.fireChannelRead(data)
        // The request of an upgrade has no body, or is rejected for it.
        case (.holding, .body), (.holding, .head), (.authenticating, .body), (.authenticating, .head): break
        case (.authenticating, .end): state = .authenticating(isComplete: true)
        case (.holding(let head, _), .end): state = .holding(head, isComplete: true)
        case (.waiting, .head(let head)), (.serving, .head(let head)): read(head, context)
        case (.waiting, _), (.serving, _): context.fireChannelRead(data)
        }
    }

    /// Closes the connection of a client that leaves before its first request.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .waiting = state, case .inputClosed = event as? ChannelEvent { return context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        context.write(data, promise: promise)
        guard case .holding(let head, let isComplete) = state, requests.unanswered == 1 else { return }
        answer(head, context, isComplete: isComplete)
    }

    private func read(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        timer?.cancel()
        if asksForSocket(head) {
            guard requests.unanswered > 1 else { return answer(head, context) }
            state = .holding(head, isComplete: false)
            return
        }
        if case .waiting = state {
            do {
                let (stream, handlers) = try gateway.addHTTP(to: context.channel, logger)
                httpHandlers = handlers
                state = .serving
                negotiated.succeed(.http(stream))
            } catch {
                state = .refused
                return context.close(promise: nil)
            }
        }
        var head = head
        if head.headers.contains(name: "upgrade") { head.closesAfterwards() }
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }

    /// Starts an upgrade, or rejects it. All earlier responses are complete.
    /// - Parameter isComplete: whether the end of the request was received already.
    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext, isComplete: Bool = false) {
        // NIO's upgrade handler fails when a body follows the upgrade request.
        let length = head.headers.first(name: "content-length") ?? "0"
        let hasBody = head.headers.contains(name: "transfer-encoding") || length != "0"
        let fault = hasBody ? EarlyRefusal.malformed("a WebSocket upgrade request must not have a body") : nil
        if let refusal = fault ?? gateway.refusal(of: head, from: context.channel) { return refuse(refusal, context) }
        guard let admission = gateway.realtimeAdmission(of: head, from: context.channel) else {
            return upgrade(head, grant: nil, isComplete: isComplete, context)
        }
        state = .authenticating(isComplete: isComplete)
        // The decoder would store all that arrives during the authentication. The open session turns reading on again.
        do { try context.channel.syncOptions?.setOption(.autoRead, value: false) } catch {
            state = .refused
            return context.close(promise: nil)
        }
        admission.decide { [self] result in
            // The connection may be closed.
            guard case .authenticating(let isComplete) = state else { return }
            switch result {
            case .success(let grant):
                // Meanwhile a limit may have been reached, or the gateway may have begun to drain.
                if let refusal = gateway.refusal(of: head, from: context.channel) { return refuse(refusal, context) }
                upgrade(head, grant: grant, isComplete: isComplete, context)
            case .failure(let refusal): refuse(refusal, context)
            }
        }
    }

    private func refuse(_ refusal: EarlyRefusal, _ context: ChannelHandlerContext) {
        state = .refused
        refusal.answer(on: context.channel) { context.write(wrapOutboundOut($0), promise: nil) }
    }

    /// Starts an upgrade.
    /// - Parameter grant: of a client of the Realtime API.
    private func upgrade(_ head: HTTPRequestHead, grant: RealtimeGrant?, isComplete: Bool, _ context: ChannelHandlerContext) {
        let isFirst = httpHandlers.isEmpty
        // The decoder comes last: frames received together with the head leave it while it is removed.
        let upgrade = UpgradeHandler(
            httpEncoder: encoder, extraHTTPHandlers: [self, requests] + httpHandlers + [decoder],
            upgradeConfiguration: .init(upgraders: [SocketUpgrader(gateway: gateway, grant: grant)]) { channel in
                channel.eventLoop.makeFailedFuture(ChannelError.inappropriateOperationForState)
            })
        do {
            try context.pipeline.syncOperations.addHandler(upgrade, position: .after(self))
            state = .upgrading
            let channel = context.channel
            upgrade.upgradeResultFuture.whenFailure { _ in channel.close(promise: nil) }
            if isFirst { upgrade.upgradeResultFuture.cascade(to: negotiated) }
            context.fireChannelRead(wrapInboundOut(.head(head)))
            if isComplete { context.fireChannelRead(wrapInboundOut(.end(nil))) }
        } catch {
            state = .refused
            context.close(promise: nil)
        }
    }

    /// Whether the request is a WebSocket upgrade (RFC 6455, 4.2.1). At least as strict as NIO's upgrader; also requires that the key has
    /// the length of 16 bytes in base64.
    private func asksForSocket(_ head: HTTPRequestHead) -> Bool {
        func words(_ name: String) -> [String] { head.headers[canonicalForm: name].map { $0.lowercased() } }
        let keys = head.headers["sec-websocket-key"]
        return head.method == .GET && gateway.isSocketPath(head.uri) && words("upgrade").contains("websocket")
            && words("connection").contains("upgrade") && keys.count == 1 && keys[0].utf8.count == 24 && keys[0].hasSuffix("==")
            && head.headers["sec-websocket-version"] == ["13"]
    }
}

/// Upgrades a connection to a WebSocket. NIO's upgrader adds the handlers at the end of the pipeline; this type adds them after the upgrade
/// handler, because the stream of a connection that has served requests stays at the end until the connection closes.
private struct SocketUpgrader: NIOTypedHTTPServerProtocolUpgrader {
    let supportedProtocol = "websocket"
    let requiredUpgradeHeaders: [String] = []
    let gateway: GatewayChannel
    let grant: RealtimeGrant?

    func buildUpgradeResponse(
        channel: any Channel, upgradeRequest: HTTPRequestHead, initialResponseHeaders: HTTPHeaders
    ) -> EventLoopFuture<HTTPHeaders> {
        var headers: HTTPHeaders = [RequestID.header: RequestID.of(upgradeRequest.headers)]
        if grant != nil, RealtimeAdmission.offersProtocol(upgradeRequest) { headers.add(name: "sec-websocket-protocol", value: "realtime") }
        // `HandshakeGate` has already rejected upgrade requests that are not allowed.
        return NIOTypedWebSocketServerUpgrader<GatewayChannel.Negotiated>(
            shouldUpgrade: { [headers] channel, _ in channel.eventLoop.makeSucceededFuture(headers) },
            upgradePipelineHandler: { channel, _ in channel.eventLoop.makeSucceededFuture(.webSocket) }
        ).buildUpgradeResponse(channel: channel, upgradeRequest: upgradeRequest, initialResponseHeaders: initialResponseHeaders)
    }

    func upgrade(channel: any Channel, upgradeRequest: HTTPRequestHead) -> EventLoopFuture<GatewayChannel.Negotiated> {
        channel.eventLoop.makeCompletedFuture {
            let handler = try channel.pipeline.syncOperations.handler(
                type: NIOTypedHTTPServerUpgradeHandler<GatewayChannel.Negotiated>.self)
            try gateway.addSocket(to: channel, upgradeRequest, grant: grant, after: handler)
            return .webSocket
        }
    }
}
