import NIOCore
import NIOPosix
import Synchronization

/// A TCP proxy that injects network faults: latency, fragmentation, stalls and resets.
package final class FaultProxy: Sendable {
    package struct Faults: Sendable {
        /// Delay of every chunk in both directions. The order is preserved.
        package var latency = TimeAmount.zero
        /// Whether chunks are split at random positions and written one by one.
        package var slices = false
        /// Whether neither data nor the end of a connection is forwarded, as with an unplugged cable. Data is held and forwarded afterwards.
        package var silent = false
        /// Whether new connections are reset at once.
        package var refuses = false
        /// How data of the server is treated. After data was dropped, the connection forwards nothing more.
        package var answers = Answers.pass
        /// Applies this treatment to answers after a client has sent this text in one chunk. The chunk itself is forwarded.
        package var onText: (text: String, answers: Answers)?
    }

    package enum Answers: Sendable { case pass, held, lost }

    /// Maximum bytes held while `silent`, per direction of a connection; beyond it the connection is reset.
    fileprivate static let heldMaximum = 64 << 20

    package let port: Int
    private let target: Int
    private let shared: Shared
    private let server: any Channel

    fileprivate final class Shared: Sendable {
        struct State {
            var faults = Faults()
            var random: SplitMix64
            var pumps: [ObjectIdentifier: NIOLoopBound<Pump>] = [:]
            var accepted = 0
        }
        let state: Mutex<State>
        init(seed: UInt64) { state = Mutex(State(random: SplitMix64(seed: seed))) }
        var faults: Faults { state.withLock { $0.faults } }

        func sent(_ piece: ByteBuffer) {
            state.withLock { state in
                guard let (text, answers) = state.faults.onText, String(buffer: piece).contains(text) else { return }
                state.faults.answers = answers
                state.faults.onText = nil
            }
        }
    }

    /// - Parameter seed: seed of the random positions for splitting.
    package static func start(to target: Int, seed: UInt64 = 1) async throws -> FaultProxy {
        let shared = Shared(seed: seed)
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try connect(channel, to: target, shared) }
            }
            .bind(host: "127.0.0.1", port: Ports.free()).get()
        return FaultProxy(server: server, target: target, shared: shared)
    }

    private init(server: any Channel, target: Int, shared: Shared) {
        self.server = server
        self.target = target
        self.shared = shared
        port = server.localAddress?.port ?? 0
    }

    private static func connect(_ near: any Channel, to target: Int, _ shared: Shared) throws {
        let refused = shared.state.withLock { state in
            state.accepted += 1
            return state.faults.refuses
        }
        guard !refused else { return reset(near) }
        let inward = Pump(shared, comesFromClient: true)
        try near.pipeline.syncOperations.addHandler(inward)
        let loop = near.eventLoop
        let bound = NIOLoopBound(inward, eventLoop: loop)
        ClientBootstrap(group: loop)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelInitializer { far in
                loop.makeCompletedFuture {
                    let outward = Pump(shared, comesFromClient: false)
                    try far.pipeline.syncOperations.addHandler(outward)
                    outward.connected(to: near)
                }
            }
            .connect(host: "127.0.0.1", port: target)
            .whenComplete { result in
                switch result {
                case .success(let far): bound.value.connected(to: far)
                case .failure: reset(near)
                }
            }
    }

    /// Makes closing send a RST instead of a FIN.
    fileprivate static func reset(_ channel: any Channel) {
        let linger = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
        if let linger { linger.whenComplete { _ in channel.close(promise: nil) } } else { channel.close(promise: nil) }
    }

    /// Number of connections accepted so far.
    package var accepted: Int { shared.state.withLock { $0.accepted } }
    package var open: Int { shared.state.withLock { $0.pumps.count / 2 } }

    package func set(_ change: (inout Faults) -> Void) {
        let pumps = shared.state.withLock { state in
            change(&state.faults)
            return Array(state.pumps.values)
        }
        for pump in pumps { pump.eventLoop.execute { pump.value.faultsChanged() } }
    }

    /// Removes all faults and forwards held data.
    package func heal() { set { $0 = Faults() } }

    /// Ends every connection with a FIN both ways.
    package func cut() { forEachChannel { $0.close(promise: nil) } }
    /// Ends every connection with a RST both ways.
    package func reset() { forEachChannel { Self.reset($0) } }

    private func forEachChannel(_ body: @escaping @Sendable (any Channel) -> Void) {
        let pumps = shared.state.withLock { Array($0.pumps.values) }
        for pump in pumps {
            pump.eventLoop.execute { if let channel = pump.value.channel { body(channel) } }
        }
    }

    package func close() async {
        try? await server.close()
        cut()
    }
}

/// Forwards the data of one side to the other, with the faults applied.
private final class Pump: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let shared: FaultProxy.Shared
    private let comesFromClient: Bool
    /// Data was dropped, so nothing more may be forwarded.
    private var hasLost = false
    private var isHolding: Bool { shared.faults.silent || !comesFromClient && shared.faults.answers == .held }
    private(set) var channel: (any Channel)?
    private var peer: (any Channel)?
    private var held: [ByteBuffer] = []
    private var heldBytes = 0
    private var ended = false
    /// When the last chunk is due, so that a reduced latency preserves the order.
    private var due = NIODeadline.now()
    /// Delayed chunks. Until they are written, later chunks must not be forwarded directly, even without latency.
    private var delayed = 0

    init(_ shared: FaultProxy.Shared, comesFromClient: Bool) {
        self.shared = shared
        self.comesFromClient = comesFromClient
    }

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        shared.state.withLock { $0.pumps[ObjectIdentifier(self)] = bound }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        channel = nil
        _ = shared.state.withLock { $0.pumps.removeValue(forKey: ObjectIdentifier(self)) }
    }

    func connected(to peer: any Channel) {
        self.peer = peer
        faultsChanged()
    }

    func faultsChanged() {
        guard let peer, !isHolding else { return }
        let pieces = held
        held = []
        heldBytes = 0
        for piece in pieces { pass(piece, to: peer) }
        if ended { finish(peer) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let piece = unwrapInboundIn(data)
        if comesFromClient {
            shared.sent(piece)
        } else if hasLost || shared.faults.answers == .lost {
            hasLost = true
            return
        }
        // Preserves the order: when the silence ends, new chunks may arrive before the loop has forwarded the held ones.
        guard let peer, !isHolding, held.isEmpty else {
            held.append(piece)
            heldBytes += piece.readableBytes
            if heldBytes > FaultProxy.heldMaximum { FaultProxy.reset(context.channel) }
            return
        }
        pass(piece, to: peer)
    }

    private func pass(_ piece: ByteBuffer, to peer: any Channel) {
        let (faults, pieces) = shared.state.withLock { state in
            (state.faults, state.faults.slices ? Self.slice(piece, &state.random) : [piece])
        }
        guard faults.latency > .zero || delayed > 0 else {
            for piece in pieces { peer.writeAndFlush(piece, promise: nil) }
            return
        }
        due = max(due, .now() + faults.latency)
        delayed += 1
        // Both ends of a connection are on one loop.
        peer.eventLoop.assumeIsolated().scheduleTask(deadline: due) {
            self.delayed -= 1
            for piece in pieces { peer.writeAndFlush(piece, promise: nil) }
        }
    }

    private static func slice(_ piece: ByteBuffer, _ random: inout SplitMix64) -> [ByteBuffer] {
        var rest = piece
        var pieces: [ByteBuffer] = []
        while rest.readableBytes > 0, let slice = rest.readSlice(length: Int.random(in: 1...min(rest.readableBytes, 64), using: &random)) {
            pieces.append(slice)
        }
        return pieces
    }

    private func finish(_ peer: any Channel) {
        if delayed > 0 {
            peer.eventLoop.scheduleTask(deadline: due) { peer.close(mode: .output, promise: nil) }
        } else {
            peer.close(mode: .output, promise: nil)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed {
            ended = true
            if !isHolding, let peer { finish(peer) }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !shared.faults.silent { peer?.close(promise: nil) } else { ended = true }
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset of one side is forwarded as a reset.
        if !shared.faults.silent, let peer { FaultProxy.reset(peer) }
        context.close(promise: nil)
    }
}
