import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Support
import Synchronization

/// Settings of the simulator.
package struct SimulatorSettings: Sendable {
    /// Address or host name to listen on.
    package var host = "127.0.0.1"
    /// Port to listen on; 0 selects a free one.
    package var port = 0
    /// Number of requests that `GET /sim/requests` lists, at least 1.
    package var requestsKept = 25_000
    /// Maximum size of a request body in bytes; larger requests get a 413 response.
    package var maximumBody = 16 << 20
    /// Interval for grouping writes under load: tokens due within it are written in one turn of the event loop. A single stream is not
    /// delayed.
    package var tick: Duration = .microseconds(500)

    package init() {}
}

/// An HTTP/1.1 server that simulates model providers. Model names select the behaviour (see `ModelScript`), and `GET /sim/requests` reports
/// what happened to each request.
package final class SimulatorServer: Sendable {
    private struct State {
        var listener: (any Channel)?
        var connections: [ObjectIdentifier: any Channel] = [:]
        var isStopping = false
    }

    private let settings: SimulatorSettings
    private let group: any EventLoopGroup
    private let logger: Logger
    private let ledger: RequestLedger
    private let clocks: LoopClocks
    private let state = Mutex(State())

    /// - Parameter group: Event loops that serve connections. The server does not shut the group down.
    package init(settings: SimulatorSettings = SimulatorSettings(), group: any EventLoopGroup, logger: Logger) {
        self.settings = settings
        self.group = group
        self.logger = logger
        ledger = RequestLedger(kept: settings.requestsKept)
        clocks = LoopClocks(group: group, tick: settings.tick)
    }

    /// Starts listening.
    /// - Returns: The bound address.
    /// - Throws: The system's error if the address cannot be resolved or bound.
    package func start() async throws -> SocketAddress {
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 4096)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            // Reports an end of file before the socket is cleaned up. See `EndOfFileHandler`.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            // The channel is unwritable as soon as bytes remain unwritten (the socket is full): the answer pauses and continues when all
            // are out.
            .childChannelOption(.writeBufferWaterMark, value: ChannelOptions.Types.WriteBufferWaterMark(low: 1, high: 4096))
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try serve(channel) }
            }
            .bind(host: settings.host, port: settings.port).get()
        state.withLock { $0.listener = listener }
        guard let address = listener.localAddress else { throw ChannelError.unknownLocalAddress }
        logger.info("simulator listening", metadata: ["address": "\(address)"])
        return address
    }

    /// Stops listening and closes every connection. Running answers end as after a client disconnect.
    package func shutdown() async {
        let (listener, connections) = state.withLock { state in
            state.isStopping = true
            return (state.listener, Array(state.connections.values))
        }
        for channel in [listener].compactMap(\.self) + connections {
            do {
                try await channel.close().get()
            } catch {
                // The peer has already closed the connection.
                logger.trace("connection already closed", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Sets up the pipeline of an accepted connection.
    /// - Throws: `ChannelError.ioOnClosedChannel` if the server is shutting down.
    private func serve(_ channel: any Channel) throws {
        let id = ObjectIdentifier(channel)
        let stopping = state.withLock { state in
            if !state.isStopping { state.connections[id] = channel }
            return state.isStopping
        }
        guard !stopping else { throw ChannelError.ioOnClosedChannel }
        channel.closeFuture.whenComplete { [self] _ in state.withLock { _ = $0.connections.removeValue(forKey: id) } }
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = 32 << 10
        limits.maxHeaderListSize = 64 << 10
        let decoder = HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)
        let handler = ConnectionHandler(
            ledger: ledger, clock: clocks.clock(of: channel.eventLoop), maximumBody: settings.maximumBody, logger: logger)
        try channel.pipeline.syncOperations.addHandlers([
            EndOfFileHandler(told: handler), ByteToMessageHandler(decoder), handler,
        ])
    }
}

/// The token clocks of an event loop group, one for each loop.
private final class LoopClocks: Sendable {
    private let boxes: [ObjectIdentifier: NIOLoopBoundBox<TokenClock?>]
    private let tick: UInt64

    init(group: any EventLoopGroup, tick: Duration) {
        self.tick = tick.timeoutNanoseconds
        var boxes: [ObjectIdentifier: NIOLoopBoundBox<TokenClock?>] = [:]
        for loop in group.makeIterator() {
            boxes[ObjectIdentifier(loop)] = NIOLoopBoundBox.makeEmptyBox(valueType: TokenClock.self, eventLoop: loop)
        }
        self.boxes = boxes
    }

    /// Returns the loop's clock, which is created on first use. Called on that loop only.
    func clock(of loop: any EventLoop) -> TokenClock {
        guard let box = boxes[ObjectIdentifier(loop)] else { return TokenClock(eventLoop: loop, tick: tick) }
        if let clock = box.value { return clock }
        let clock = TokenClock(eventLoop: loop, tick: tick)
        box.value = clock
        return clock
    }
}
