import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore
import NIOEmbedded
import NIOWebSocket
import RedisClient
import TestSupport
import Testing

@testable import Gateway

/// Connection limits and writes of a WebSocket, on an embedded channel without a network.
@Suite struct ClientSocketTests {
    /// Counts the writes and flushes of the handler above it.
    private final class Wire: ChannelOutboundHandler {
        typealias OutboundIn = WebSocketFrame
        var writes = 0
        var flushes = 0
        /// Frames that were written but not flushed when the connection was closed; nil: it is open.
        var lostFrames: Int?
        private var flushed = 0

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            writes += 1
            context.write(data, promise: promise)
        }

        func flush(context: ChannelHandlerContext) {
            flushes += 1
            flushed = writes
            context.flush()
        }

        func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
            lostFrames = lostFrames ?? writes - flushed
            context.close(mode: mode, promise: promise)
        }
    }

    private static func channel(from address: String) throws -> EmbeddedChannel {
        let channel = EmbeddedChannel()
        try channel.connect(to: SocketAddress(ipAddress: address, port: 1)).wait()
        return channel
    }

    private static func close(_ channel: EmbeddedChannel) {
        channel.close(promise: nil)
        channel.embeddedEventLoop.run()
    }

    @Test func `all connections count toward the limit, whatever their protocol`() throws {
        var settings = GatewaySettings()
        settings.socketsMaximum = 2
        settings.socketsPerAddress = 0
        let ledger = ConnectionLedger(settings: settings)
        // 1,004 in total; 100 of them are reserved for addresses with fewer than 4 connections.
        let channels = try (0..<904).map { _ in try Self.channel(from: "192.0.2.1") }
        #expect(channels.allSatisfy { ledger.admit($0) })
        #expect(try !ledger.admit(Self.channel(from: "192.0.2.1")))
        let probes = try (0..<100).map { try Self.channel(from: "198.51.100.\($0 / 4)") }
        #expect(probes.allSatisfy { ledger.admit($0) })
        #expect(try !ledger.admit(Self.channel(from: "203.0.113.1")), "no connection is left")
        Self.close(probes[0])
        #expect(try ledger.admit(Self.channel(from: "203.0.113.1")))
        for channel in channels.prefix(2) { Self.close(channel) }
        #expect(try !ledger.admit(Self.channel(from: "192.0.2.1")), "the reserve is refilled first")
    }

    @Test func `connections of one address are limited`() throws {
        var settings = GatewaySettings()
        settings.socketsPerAddress = 5
        let ledger = ConnectionLedger(settings: settings)
        let channels = try (0..<260).map { try Self.channel(from: "2001:db8:0:1::\($0)") }
        #expect(channels.allSatisfy { ledger.admit($0) })
        #expect(try !ledger.admit(Self.channel(from: "2001:db8:0:1:ffff::1")))
        #expect(try ledger.admit(Self.channel(from: "2001:db8:0:2::1")))
        Self.close(channels[0])
        #expect(try ledger.admit(Self.channel(from: "2001:db8:0:1:ffff::1")))
    }

    @Test func `default limit per address and keys of addresses`() {
        var settings = GatewaySettings()
        #expect(settings.addressShare == 2_500)
        settings.socketsMaximum = 1
        #expect(settings.addressShare == 1)
        settings.socketsPerAddress = 0
        #expect(settings.addressShare == 0)
        let table = [
            ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8::6", "2001:db8:0:0::/64"), ("::1", "0:0:0:0::/64"), ("fe80::", "fe80:0:0:0::/64"), ("", ""),
        ]
        for (address, key) in table { #expect(AddressShares.key(address) == key, "\(address)") }
    }

    @Test func `connections refused for their address take no places of others`() throws {
        let loop = EmbeddedEventLoop()
        let context = try Self.context(on: loop)
        let node = NIOLoopBound(GatewayState(context: context, descriptors: 64), eventLoop: loop)
        let setup = GatewayChannel(gateway: node, settings: context.settings, certificates: nil) { _, _, _ in }
        func isAdmitted(_ address: String) throws -> Bool {
            let channel = EmbeddedChannel(loop: loop)
            try channel.connect(to: SocketAddress(ipAddress: address, port: 1)).wait()
            _ = try setup.setup(channel: channel, logger: context.logger).wait()
            let options = channel.options.map(\.value)
            #expect(options.contains { $0 as? UInt == 1 }, "one read of each connection for each turn of the event loop")
            let allocator = options.compactMap { $0 as? AdaptiveRecvByteBufferAllocator }.last
            #expect(allocator?.maximum == GatewayChannel.readSize)
            return (try? channel.pipeline.syncOperations.handler(type: HandshakeGate.self)) != nil
        }
        // Half of the 64 places for one address; its further connections stay open for a while.
        let attempts = try (0..<200).map { _ in try isAdmitted("192.0.2.1") }
        #expect(attempts.count { $0 } == 32 && attempts.prefix(32).allSatisfy { $0 })
        for number in 0..<32 { #expect(try isAdmitted("198.51.100.\(number)"), "\(number)") }
        #expect(try !isAdmitted("203.0.113.1"), "no place is left")
    }

    private static func context(on loop: EmbeddedEventLoop) throws -> GatewayContext {
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let url = try RedisURL("redis://127.0.0.1:1")
        let redis = RedisClient(url: url, settings: .forTests, eventLoop: loop, name: "commands", logger: logger)
        let subscriber = RedisSubscriber(url: url, settings: .forTests, eventLoop: loop, name: "events", logger: logger)
        let queue = JobProducer(redis: redis, settings: QueueSettings())
        return GatewayContext(
            settings: GatewaySettings(), queue: queue,
            feed: EventFeed(queue: queue, subscriber: subscriber, eventLoop: loop, logger: logger),
            authenticator: try authenticator { $0.none = true }, eventLoop: loop,
            readiness: Readiness(isRedisReachable: { true }, isSubscriptionAlive: { true }), logger: logger)
    }

    /// A socket in a channel without a network.
    private static func socket() throws -> (ClientSocket, Wire, EmbeddedChannel) {
        let channel = EmbeddedChannel()
        let wire = Wire()
        let socket = ClientSocket(gateway: GatewayState(context: try context(on: channel.embeddedEventLoop)), address: "")
        try channel.pipeline.syncOperations.addHandlers([wire, socket])
        return (socket, wire, channel)
    }

    @Test func `the time for REGISTER does not run while one is checked`() throws {
        let (socket, wire, channel) = try Self.socket()
        let loop = channel.embeddedEventLoop
        loop.advanceTime(by: .seconds(9))
        socket.registering()
        loop.advanceTime(by: .seconds(60))
        #expect(wire.writes == 0)
        socket.awaitRegister()
        loop.advanceTime(by: .seconds(9))
        #expect(wire.writes == 0)
        loop.advanceTime(by: .seconds(1))
        #expect(wire.writes == 1, "closed with 4408")
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    /// The close frame of the peer may arrive with the frame before it, in the same turn of the event loop.
    @Test func `nothing written is lost when the peer closes at once`() throws {
        let key: WebSocketMaskingKey = [0, 0, 0, 0]
        func frame(_ opcode: WebSocketOpcode, _ bytes: [UInt8], masked: Bool = true) -> WebSocketFrame {
            WebSocketFrame(fin: true, opcode: opcode, maskKey: masked ? key : nil, data: ByteBuffer(bytes: bytes))
        }
        let close = frame(.connectionClose, [0x03, 0xE8])
        let table: [(String, [WebSocketFrame], Int)] = [
            ("after a protocol error", [frame(.text, [0x78], masked: false), close], 1),
            ("after an ERROR", [frame(.text, [0x78]), close], 2), ("an invalid close frame", [frame(.connectionClose, [3])], 1),
            ("invalid twice", [frame(.connectionClose, [3]), close], 1), ("only a close frame", [close], 1),
        ]
        for (name, frames, answers) in table {
            let (_, wire, channel) = try Self.socket()
            for frame in frames { try channel.writeInbound(frame) }
            channel.embeddedEventLoop.run()
            #expect(wire.lostFrames == 0 && wire.writes == answers, "\(name): \(wire.writes) frames, \(wire.lostFrames ?? -1) lost")
            _ = try channel.finish(acceptAlreadyClosed: true)
        }
    }

    @Test func `a message is charged for its members and elements`() throws {
        let (socket, _, channel) = try Self.socket()
        func message(_ values: Int) -> ByteBuffer {
            ByteBuffer(string: "[" + Array(repeating: "0", count: values).joined(separator: ",") + "]")
        }
        for _ in 0..<1_000 { socket.received(message(256)) }
        #expect(socket.account.debt == 0)
        socket.received(message(50_000))
        #expect(socket.account.debt > 0, "an eighth of a second of a tenant's bytes is 4 MiB, and 50,000 values cost 6.1 MiB")
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    @Test func `frames of one event loop tick are flushed once`() throws {
        let (socket, wire, channel) = try Self.socket()
        let loop = channel.embeddedEventLoop
        for round in 1...3 {
            for number in 0..<10 { socket.send("HEARTBEAT", ["remaining_seconds": .integer(number)]) }
            #expect(wire.flushes == round - 1, "nothing is flushed before the end of the tick")
            loop.run()
            #expect(wire.writes == 10 * round && wire.flushes == round)
        }
        _ = try channel.finish(acceptAlreadyClosed: true)
    }
}
