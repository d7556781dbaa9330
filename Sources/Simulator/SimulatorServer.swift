import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

package struct SimulatorSettings: Sendable {
    /// Address or name to listen on.
    package var host = "127.0.0.1"
    /// 0: any free one.
    package var port = 0
    /// How many requests `GET /sim/requests` remembers, at least 1.
    package var requestsKept = 10_000
    /// Bytes of a request's body; a longer one is answered 413.
    package var maximumBody = 16 << 20
    /// Under load tokens that fall due within this time are written in one turn of their loop; one stream alone is not delayed by it.
    package var tick: Duration = .microseconds(500)

    package init() {}
}

/// A stand-in for model providers over HTTP/1.1: its models' names order what they do (CONTRACT 5), and it tells what became of each
/// request.
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

    /// - Parameter group: whose loops serve; it is not shut down with the server.
    package init(settings: SimulatorSettings = SimulatorSettings(), group: any EventLoopGroup, logger: Logger) {
        self.settings = settings
        self.group = group
        self.logger = logger
        ledger = RequestLedger(kept: settings.requestsKept)
        clocks = LoopClocks(group: group, tick: settings.tick)
    }

    /// Listens.
    /// - Returns: the bound address.
    /// - Throws: what the system said of the address or the port.
    package func start() async throws -> SocketAddress {
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 4096)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            // So that an end of file is told before its socket is cleared away: see EndOfFileHandler.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            // Anything left unwritten means that the socket is full: that is when an answer pauses, and it goes on when all is out.
            .childChannelOption(.writeBufferWaterMark, value: ChannelOptions.Types.WriteBufferWaterMark(low: 1, high: 4096))
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try serve(channel) }
            }
            .bind(host: settings.host, port: settings.port).get()
        state.withLock { $0.listener = listener }
        guard let address = listener.localAddress else { throw ChannelError.unknownLocalAddress }
        logger.info("simulator listens", metadata: ["address": "\(address)"])
        return address
    }

    /// Stops listening and closes every connection; answers under way end as if their clients had left.
    package func shutdown() async {
        let (listener, connections) = state.withLock { state in
            state.isStopping = true
            return (state.listener, Array(state.connections.values))
        }
        for channel in [listener].compactMap(\.self) + connections {
            do {
                try await channel.close().get()
            } catch {
                // Closed already by its other side.
                logger.trace("close", metadata: ["error": "\(error)"])
            }
        }
    }

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

/// One `TokenClock` for each loop of a group.
private final class LoopClocks: Sendable {
    private let boxes: [ObjectIdentifier: NIOLoopBoundBox<TokenClock?>]
    private let tick: UInt64

    init(group: any EventLoopGroup, tick: Duration) {
        let (seconds, attoseconds) = tick.components
        self.tick = UInt64(max(0, seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
        var boxes: [ObjectIdentifier: NIOLoopBoundBox<TokenClock?>] = [:]
        for loop in group.makeIterator() {
            boxes[ObjectIdentifier(loop)] = NIOLoopBoundBox.makeEmptyBox(valueType: TokenClock.self, eventLoop: loop)
        }
        self.boxes = boxes
    }

    /// On that loop only.
    func clock(of loop: any EventLoop) -> TokenClock {
        guard let box = boxes[ObjectIdentifier(loop)] else { return TokenClock(eventLoop: loop, tick: tick) }
        if let clock = box.value { return clock }
        let clock = TokenClock(eventLoop: loop, tick: tick)
        box.value = clock
        return clock
    }
}
