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

/// An accepted connection: HTTP/1.1, of which one path may become a WebSocket.
struct GatewayChannel: ServerChildChannel, HTTPChannelHandler {
    static let path = "/ws/agent/stream"

    typealias HTTPStream = NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>

    enum Negotiated: Sendable {
        /// Its handler does everything by itself.
        case webSocket
        case http(HTTPStream)
        /// Beyond the connections that may be open: its handler does everything by itself.
        case probe
    }

    struct Value: ServerChildChannelValue {
        let negotiated: EventLoopFuture<Negotiated>
        let channel: any Channel
    }

    /// How long a kept-alive HTTP connection may do nothing.
    private static let idleTimeout = Duration.seconds(75)

    let responder: HTTPChannelHandler.Responder
    private let node: NIOLoopBound<GatewayNode>
    private let settings: GatewaySettings
    private let origins: OriginRule
    private let certificates: CertificateBox?

    init(
        node: NIOLoopBound<GatewayNode>, settings: GatewaySettings, certificates: CertificateBox?,
        responder: @escaping HTTPChannelHandler.Responder
    ) {
        self.node = node
        self.settings = settings
        self.certificates = certificates
        self.responder = responder
        origins = OriginRule(allowed: settings.allowedOrigins)
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            let isAdmitted = node.value.probes.admit(channel) && node.value.connections.admit(channel)
            if let certificates {
                try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: certificates.context))
            }
            guard isAdmitted else {
                try node.value.probes.serve(channel, readiness: node.value.context.readiness)
                return Value(negotiated: channel.eventLoop.makeSucceededFuture(.probe), channel: channel)
            }
            try channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
            let upgrader = NIOTypedWebSocketServerUpgrader<Negotiated>(
                maxFrameSize: settings.messageMaximum, enableAutomaticErrorHandling: false,
                // The gate lets no request as far as here that asks for an upgrade and may not have it.
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
            let gate = HandshakeGate(timeout: settings.handshakeTimeout, requests: requests) { self.refusal(of: $0, from: $1) }
            try channel.pipeline.syncOperations.addHandlers([requests, gate], position: .before(try upgradeHandler(channel)))
            return Value(negotiated: negotiated, channel: channel)
        }
    }

    private func upgradeHandler(_ channel: any Channel) throws -> NIOTypedHTTPServerUpgradeHandler<Negotiated> {
        try channel.pipeline.syncOperations.handler(type: NIOTypedHTTPServerUpgradeHandler<Negotiated>.self)
    }

    static func isSocketPath(_ uri: String) -> Bool {
        uri.hasPrefix(path) && (uri.utf8.count == path.utf8.count || uri.dropFirst(path.count).first == "?")
    }

    private func refusal(of head: HTTPRequestHead, from channel: any Channel) -> EarlyRefusal? {
        let node = node.value
        if node.context.readiness.isDraining { return .draining }
        let given = head.headers["origin"]
        guard given.count <= 1, origins.allows(origin: given.first, host: head.headers.first(name: "host")) else { return .origin }
        if node.ledger.isFull { return .full }
        return node.ledger.isFull(address: Self.address(channel)) ? .address : nil
    }

    private static func address(_ channel: any Channel) -> String { channel.remoteAddress?.ipAddress ?? "" }

    private func webSocket(_ channel: any Channel, _ head: HTTPRequestHead) -> EventLoopFuture<Negotiated> {
        channel.eventLoop.makeCompletedFuture {
            let high = min(settings.outgoingMaximum, SocketOutput.watchedSize)
            try channel.syncOptions?.setOption(.writeBufferWaterMark, value: .init(low: high / 2, high: high))
            let socket = AgentSocket(node: node.value, address: Self.address(channel))
            socket.traceparent = head.headers.first(name: "traceparent").flatMap(TraceParent.init)?.text
            try channel.pipeline.syncOperations.addHandler(socket)
            return .webSocket
        }
    }

    private func http(_ channel: any Channel, _ logger: Logger) throws -> HTTPStream {
        try channel.pipeline.syncOperations.addHandler(HTTP1ToHTTPServerCodec(secure: certificates != nil))
        try channel.pipeline.syncOperations.addHandler(HTTPConnectionStateHandler(idleTimeout: Self.idleTimeout, logger: logger))
        return try NIOAsyncChannel(wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: true))
    }

    func handle(value: Value, logger: Logger) async {
        do {
            // The future knows nothing of cancellation: without this a connection that says nothing holds a gateway back that ends.
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
