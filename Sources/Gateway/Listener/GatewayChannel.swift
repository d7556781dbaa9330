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

/// The pipeline of an accepted connection: HTTP/1.1, with an upgrade to a WebSocket on the configured paths.
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
            try channel.syncOptions?.setOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readSize))
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
            let upgrader = NIOTypedWebSocketServerUpgrader<Negotiated>(
                maxFrameSize: settings.messageMaximum, enableAutomaticErrorHandling: false,
                // `HandshakeGate` has already rejected upgrade requests that are not allowed.
                shouldUpgrade: { channel, _ in channel.eventLoop.makeSucceededFuture(HTTPHeaders()) },
                upgradePipelineHandler: { channel, head in self.webSocket(channel, head) })
            var configuration = NIOUpgradableHTTPServerPipelineConfiguration<Negotiated>(
                upgradeConfiguration: .init(upgraders: [upgrader]) { channel in
                    channel.eventLoop.makeCompletedFuture { .http(try self.http(channel, logger)) }
                })
            configuration.enablePipelining = false
            configuration.enableErrorHandling = false
            configuration.enableResponseHeaderValidation = false
            configuration.decoderConfiguration.maxHeaderListSize = settings.headerMaximum
            configuration.decoderConfiguration.maxHeaderFieldSize = settings.headerMaximum
            let negotiated = try channel.pipeline.syncOperations.configureUpgradableHTTPServerPipeline(configuration: configuration)
            let requests = RequestGuard(
                bodyTimeout: settings.bodyTimeout, bodyMaximum: settings.messageMaximum, hosts: HostRule(settings.authentication))
            let gate = HandshakeGate(
                timeout: settings.handshakeTimeout, requests: requests, isSocketPath: isSocketPath, judge: refusal)
            try channel.pipeline.syncOperations.addHandlers([requests, gate], position: .before(try upgradeHandler(channel)))
            return Value(negotiated: negotiated, channel: channel)
        }
    }

    private func upgradeHandler(_ channel: any Channel) throws -> NIOTypedHTTPServerUpgradeHandler<Negotiated> {
        try channel.pipeline.syncOperations.handler(type: NIOTypedHTTPServerUpgradeHandler<Negotiated>.self)
    }

    /// Whether a request target is a path of the WebSocket, with or without a query.
    private func isSocketPath(_ uri: String) -> Bool {
        let path = uri.prefix { $0 != "?" }
        return settings.webSocketPaths.contains { $0 == path }
    }

    /// The reason to reject a WebSocket upgrade; nil when it is allowed.
    private func refusal(_ head: HTTPRequestHead, _ channel: any Channel) -> EarlyRefusal? {
        let gateway = gateway.value
        if gateway.context.readiness.isDraining { return .draining }
        let given = head.headers["origin"]
        guard given.count <= 1, origins.allows(origin: given.first, host: head.headers.first(name: "host")) else { return .origin }
        if gateway.ledger.isFull { return .full }
        return gateway.ledger.isFull(address: Self.address(channel)) ? .address : nil
    }

    private static func address(_ channel: any Channel) -> String { channel.remoteAddress?.ipAddress ?? "" }

    /// Sets up the pipeline of a WebSocket.
    private func webSocket(_ channel: any Channel, _ head: HTTPRequestHead) -> EventLoopFuture<Negotiated> {
        channel.eventLoop.makeCompletedFuture {
            let high = min(settings.outgoingMaximum, SocketOutput.watchedSize)
            try channel.syncOptions?.setOption(.writeBufferWaterMark, value: .init(low: high / 2, high: high))
            let socket = ClientSocket(gateway: gateway.value, address: Self.address(channel))
            socket.traceparent = head.headers.first(name: "traceparent").flatMap(TraceParent.init)?.text
            try channel.pipeline.syncOperations.addHandler(socket)
            return .webSocket
        }
    }

    /// Sets up the pipeline of an HTTP connection.
    private func http(_ channel: any Channel, _ logger: Logger) throws -> HTTPStream {
        try channel.pipeline.syncOperations.addHandler(HTTP1ToHTTPServerCodec(secure: certificates != nil))
        try channel.pipeline.syncOperations.addHandler(HTTPConnectionStateHandler(idleTimeout: Self.idleTimeout, logger: logger))
        return try NIOAsyncChannel(wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
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
