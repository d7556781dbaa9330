import NIOCore
import NIOPosix
import Synchronization

/// A proxy in front of Redis that corrupts some replies: another type, a huge length, garbage, omitted, sent twice.
package final class SpoilingProxy: Sendable {
    package enum Spoiling: Sendable, CaseIterable {
        case dropped, doubled, rubbish, integer, hugeInteger, text, null, error, hugeLength, negativeLength, longArray, bitFlipped
    }

    package let port: Int
    private let server: any Channel
    private let shared: Shared

    fileprivate final class Shared: Sendable {
        struct State {
            /// Nil: no corruption. Otherwise one in this many replies is corrupted, starting with the second reply of a connection.
            var every: Int?
            var kinds = Spoiling.allCases
            var random: SplitMix64
            /// Number of replies that may still be corrupted; nil for no limit.
            var left: Int?
            var spoilt = 0
        }
        let state: Mutex<State>
        init(seed: UInt64) { state = Mutex(State(random: SplitMix64(seed: seed))) }

        func spoil(_ reply: [UInt8]) -> [UInt8] {
            state.withLock { state in
                guard state.left != 0, let every = state.every, state.random.next() % UInt64(every) == 0,
                    let kind = state.kinds.randomElement(using: &state.random)
                else { return reply }
                state.spoilt += 1
                state.left = state.left.map { $0 - 1 }
                return Self.spoil(reply, kind, &state.random)
            }
        }

        private static func spoil(_ reply: [UInt8], _ kind: Spoiling, _ random: inout SplitMix64) -> [UInt8] {
            switch kind {
            case .dropped: []
            case .doubled: reply + reply
            case .rubbish: (0..<16).map { _ in UInt8.random(in: 0...255, using: &random) }
            case .integer: Array(":7\r\n".utf8)
            case .hugeInteger: Array(":9223372036854775807\r\n".utf8)
            case .text: Array("$5\r\nhello\r\n".utf8)
            case .null: Array("$-1\r\n".utf8)
            case .error: Array("-ERR spoilt\r\n".utf8)
            case .hugeLength: Array("$9223372036854775807\r\n".utf8)
            case .negativeLength: Array("*-9223372036854775808\r\n".utf8)
            case .longArray: Array("*3\r\n:-9223372036854775808\r\n$0\r\n\r\n*2\r\n:0\r\n:1\r\n".utf8)
            case .bitFlipped:
                reply.enumerated().map { index, byte in
                    index % 7 == 0 && random.next() % 4 == 0 ? byte ^ 1 << UInt8(random.next() % 8) : byte
                }
            }
        }
    }

    package static func start(to target: Int, seed: UInt64) async throws -> SpoilingProxy {
        let shared = Shared(seed: seed)
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { near in
                near.eventLoop.makeCompletedFuture {
                    let inward = Pump(spoil: nil)
                    try near.pipeline.syncOperations.addHandler(inward)
                    let bound = NIOLoopBound(inward, eventLoop: near.eventLoop)
                    ClientBootstrap(group: near.eventLoop)
                        .channelInitializer { far in
                            far.eventLoop.makeCompletedFuture {
                                let outward = Pump(spoil: { shared.spoil($0) })
                                try far.pipeline.syncOperations.addHandler(outward)
                                outward.connected(to: near)
                            }
                        }
                        .connect(host: "127.0.0.1", port: target)
                        .whenComplete { result in
                            switch result {
                            case .success(let far): bound.value.connected(to: far)
                            case .failure: near.close(promise: nil)
                            }
                        }
                }
            }
            .bind(host: "127.0.0.1", port: Ports.free()).get()
        return SpoilingProxy(server: server, shared: shared)
    }

    private init(server: any Channel, shared: Shared) {
        self.server = server
        self.shared = shared
        port = server.localAddress?.port ?? 0
    }

    package var url: String { "redis://127.0.0.1:\(port)" }
    /// Number of corrupted replies so far.
    package var spoilt: Int { shared.state.withLock { $0.spoilt } }

    /// Corrupts one in `every` replies from now on, at most `limit`; nil: none, and no limit.
    package func spoil(every: Int?, _ kinds: [Spoiling] = Spoiling.allCases, limit: Int? = nil) {
        shared.state.withLock {
            $0.every = every
            $0.kinds = kinds
            $0.left = limit
        }
    }

    package func close() async { try? await server.close() }
}

/// One direction of a connection. Replies that may be corrupted are forwarded one by one.
private final class Pump: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let spoil: (([UInt8]) -> [UInt8])?
    private var peer: (any Channel)?
    private var held = ByteBuffer()

    init(spoil: (([UInt8]) -> [UInt8])?) { self.spoil = spoil }

    func connected(to peer: any Channel) {
        self.peer = peer
        pass()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var piece = unwrapInboundIn(data)
        held.writeBuffer(&piece)
        pass()
    }

    private func pass() {
        guard let peer else { return }
        guard let spoil else {
            if held.readableBytes > 0 { peer.writeAndFlush(held, promise: nil) }
            held = ByteBuffer()
            return
        }
        var out = ByteBuffer()
        while let end = Self.end(of: held, held.readerIndex), let reply = held.readBytes(length: end - held.readerIndex) {
            out.writeBytes(spoil(reply))
        }
        if held.readableBytes == 0 { held = ByteBuffer() }
        if out.readableBytes > 0 { peer.writeAndFlush(out, promise: nil) }
    }

    /// The end of the reply that begins at `start`; nil: it is incomplete.
    private static func end(of buffer: ByteBuffer, _ start: Int) -> Int? {
        let bytes = buffer.readableBytesView
        guard start < bytes.endIndex, let line = bytes[start...].firstIndex(of: 13), line + 1 < bytes.endIndex else { return nil }
        let number = Int(String(decoding: bytes[(start + 1)..<line], as: UTF8.self)) ?? 0
        switch bytes[start] {
        case UInt8(ascii: "$"): return number < 0 ? line + 2 : line + 4 + number <= bytes.endIndex ? line + 4 + number : nil
        case UInt8(ascii: "*"):
            var end = line + 2
            for _ in 0..<max(0, number) {
                guard let next = Self.end(of: buffer, end) else { return nil }
                end = next
            }
            return end
        default: return line + 2
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        peer?.close(promise: nil)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        peer?.close(promise: nil)
        context.close(promise: nil)
    }
}
