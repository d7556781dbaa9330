import Contract
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOSSL
import NIOWebSocket

/// The pipeline of an accepted connection: HTTP/1.1, with an upgrade to a WebSocket on the configured paths by any of its requests.
struct GatewayChannel: ServerChildChannel, HTTPChannelHandler {
    typealias HTTPStream = NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>

    /// The protocol of a connection after its first request.
    enum Negotiated: Sendable {
        /// Handled by the `ClientSocket` in the pipeline.
        case webSocket
        case http(HTTPStream)
        /// Above the limit of open connections; handled by `ProbeReserve`.
        case probe
    }

    struct Value: ServerChildChannelValue {
        let negotiated: EventLoopFuture<Negotiated>
        let channel: any Channel
    }

    /// Bytes that the kernel buffers for a client that does not read; Linux would let each buffer grow to 4 MB. Sufficient for 2.5 MB/s
    /// with a round trip of 100 ms.
    private static let sendBuffer: SocketOptionValue = 256 << 10
    /// Idle timeout of a kept-alive HTTP connection.
    private static let idleTimeout = Duration.seconds(75)
    /// Maximum bytes that a connection reads before the event loop turns to the next one. Larger reads from hundreds of connections that
    /// send at full speed would take hundreds of milliseconds.
    static let readSize = 16 << 10
    /// Bytes of a connection's first reads. Each connection keeps its buffer, which grows when reads fill it; that of an idle WebSocket would
    /// otherwise be most of its memory.
    private static let firstReadSize = 1 << 10

    let responder: HTTPChannelHandler.Responder
    private let gateway: NIOLoopBound<GatewayState>
    private let settings: GatewaySettings
    private let origins: OriginRule
    private let certificates: CertificateBox?

    init(
        gateway: NIOLoopBound<GatewayState>, settings: GatewaySettings, certificates: CertificateBox?,
        responder: @escaping HTTPChannelHandler.Responder
    ) {
        self.gateway = gateway
        self.settings = settings
        self.certificates = certificates
        self.responder = responder
        origins = OriginRule(allowed: settings.allowedOrigins)
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
            try channel.syncOptions?.setOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: Self.firstReadSize, initial: Self.firstReadSize, maximum: Self.readSize))
            let isAdmitted = gateway.value.connections.admit(channel)
            if let certificates {
                try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: certificates.context))
            }
            guard isAdmitted else {
                try gateway.value.probes.serve(channel, readiness: gateway.value.context.readiness)
                return Value(negotiated: channel.eventLoop.makeSucceededFuture(.probe), channel: channel)
            }
            try channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
            try channel.syncOptions?.setOption(.socketOption(.so_sndbuf), value: Self.sendBuffer)
            return Value(negotiated: try addHandlers(to: channel, logger), channel: channel)
        }
    }

    /// Adds the HTTP handlers of a connection. `HandshakeGate` upgrades it to a WebSocket when a request asks for that.
    private func addHandlers(to channel: any Channel, _ logger: Logger) throws -> EventLoopFuture<Negotiated> {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderListSize = settings.headerMaximum
        limits.maxHeaderFieldSize = settings.headerMaximum
        let encoder = HTTPResponseEncoder()
        let decoder = ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits))
        let requests = RequestGuard(
            bodyTimeout: settings.bodyTimeout, bodyMaximum: settings.bodyMaximum, hosts: HostRule(settings.authentication))
        let negotiated = channel.eventLoop.makePromise(of: Negotiated.self)
        let gate = HandshakeGate(
            self, timeout: settings.handshakeTimeout, encoder: encoder, decoder: decoder, requests: requests, negotiated: negotiated,
            logger: logger)
        do { try channel.pipeline.syncOperations.addHandlers([encoder, decoder, requests, gate]) } catch {
            negotiated.fail(error)
            throw error
        }
        return negotiated.futureResult
    }

    /// Whether a request target is a path of the WebSocket, with or without a query.
    func isSocketPath(_ uri: String) -> Bool {
        let path = uri.prefix { $0 != "?" }
        return path == RealtimeAdmission.path || settings.webSocketPaths.contains { $0 == path }
    }

    /// Authenticates the client of an upgrade to the Realtime API.
    /// - Returns: nil for another path.
    func realtimeAdmission(of head: HTTPRequestHead, from channel: any Channel) -> RealtimeAdmission? {
        RealtimeAdmission(head, address: Self.address(channel), context: gateway.value.context)
    }

    /// The reason to reject a WebSocket upgrade; nil when it is allowed.
    func refusal(of head: HTTPRequestHead, from channel: any Channel) -> EarlyRefusal? {
        let gateway = gateway.value
        if gateway.context.readiness.isDraining { return .draining }
        let given = head.headers["origin"]
        guard given.count <= 1, origins.allows(origin: given.first, host: head.headers.first(name: "host")) else { return .origin }
        if gateway.ledger.isFull { return .full }
        return gateway.ledger.isFull(address: Self.address(channel)) ? .address : nil
    }

    private static func address(_ channel: any Channel) -> String { channel.remoteAddress?.ipAddress ?? "" }

    /// Adds the handlers of a WebSocket after the handler that upgrades the connection.
    /// - Parameter grant: of a client of the Realtime API; nil for other clients.
    func addSocket(
        to channel: any Channel, _ head: HTTPRequestHead, grant: RealtimeGrant?, after upgrade: any ChannelHandler
    ) throws {
        let high = min(settings.outgoingMaximum, SocketOutput.watchedSize)
        try channel.syncOptions?.setOption(.writeBufferWaterMark, value: .init(low: high / 2, high: high))
        let socket = ClientSocket(gateway: gateway.value, address: Self.address(channel), grant: grant)
        socket.traceparent = head.headers.first(name: "traceparent").flatMap(TraceParent.init)?.text
        let decoder = ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: settings.messageMaximum))
        // In this order, because `ClientSocket` adds `SocketIntake` before the decoder when it is added itself.
        try channel.pipeline.syncOperations.addHandlers([WebSocketFrameEncoder(), decoder], position: .after(upgrade))
        try channel.pipeline.syncOperations.addHandler(socket, position: .after(decoder))
    }

    /// Adds the handlers that pass an HTTP connection's requests to the router.
    /// - Returns: the stream of requests, and the handlers that an upgrade must remove.
    func addHTTP(to channel: any Channel, _ logger: Logger) throws -> (HTTPStream, [any RemovableChannelHandler]) {
        let handlers: [any RemovableChannelHandler] = [
            HTTP1ToHTTPServerCodec(secure: certificates != nil),
            HTTPConnectionStateHandler(idleTimeout: Self.idleTimeout, logger: logger),
        ]
        try channel.pipeline.syncOperations.addHandlers(handlers)
        // From the start: a client may disconnect before the route of its request watches it.
        let presence = ClientPresence()
        try channel.pipeline.syncOperations.addHandler(presence, position: .first)
        let stream = try HTTPStream(wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
        return (stream, handlers + [presence])
    }

    func handle(value: Value, logger: Logger) async {
        do {
            // Awaiting an event-loop future ignores cancellation. Without the handler an idle connection would delay shutdown.
            let negotiated = try await withTaskCancellationHandler {
                try await value.negotiated.get()
            } onCancel: {
                value.channel.close(promise: nil)
            }
            switch negotiated {
            case .webSocket, .probe: break
            case .http(let stream): await handleHTTP(asyncChannel: stream, logger: logger)
            }
        } catch {
            logger.trace("connection ended before its first request", metadata: ["error": "\(error)"])
            value.channel.close(promise: nil)
        }
    }
}
