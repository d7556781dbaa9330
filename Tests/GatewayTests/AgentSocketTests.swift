import Contract
import JobQueue
import Logging
import NIOCore
import NIOEmbedded
import NIOWebSocket
import RedisClient
import TestSupport
import Testing

@testable import Gateway

/// One socket without a network.
@Suite struct AgentSocketTests {
    /// Stands between the socket and the wire.
    private final class Wire: ChannelOutboundHandler {
        typealias OutboundIn = WebSocketFrame
        var writes = 0
        var flushes = 0

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            writes += 1
            context.write(data, promise: promise)
        }

        func flush(context: ChannelHandlerContext) {
            flushes += 1
            context.flush()
        }
    }

    @Test func connectionsAreBoundedWhateverTheySpeak() {
        let ledger = ConnectionLedger(sockets: 2)
        let channels = (0..<1_004).map { _ in EmbeddedChannel() }
        #expect(channels.allSatisfy { ledger.admit($0) })
        #expect(!ledger.admit(EmbeddedChannel()))
        channels[0].close(promise: nil)
        channels[0].embeddedEventLoop.run()
        #expect(ledger.admit(EmbeddedChannel()) && !ledger.admit(EmbeddedChannel()))
    }

    @Test func framesOfOneTurnGoOutInOneWrite() throws {
        let channel = EmbeddedChannel()
        let loop = channel.embeddedEventLoop
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let url = try RedisURL("redis://127.0.0.1:1")
        let redis = RedisClient(url: url, settings: RedisSettings(), eventLoop: loop, name: "commands", logger: logger)
        let subscriber = RedisSubscriber(url: url, settings: RedisSettings(), eventLoop: loop, name: "events", logger: logger)
        let queue = JobQueue(redis: redis, settings: QueueSettings())
        let context = GatewayContext(
            settings: GatewaySettings(), queue: queue,
            feed: EventFeed(queue: queue, subscriber: subscriber, eventLoop: loop, logger: logger),
            authenticator: try authenticator { $0.none = true }, eventLoop: loop,
            readiness: Readiness(isRedisReachable: { true }, isSubscriptionAlive: { true }), logger: logger)
        let wire = Wire()
        let socket = AgentSocket(node: GatewayNode(context: context), address: "")
        try channel.pipeline.syncOperations.addHandlers([wire, socket])
        for round in 1...3 {
            for number in 0..<10 { socket.send("HEARTBEAT", ["remaining_seconds": .integer(number)]) }
            #expect(wire.flushes == round - 1, "nothing goes out before the turn is over")
            loop.run()
            #expect(wire.writes == 10 * round && wire.flushes == round)
        }
        _ = try channel.finish(acceptAlreadyClosed: true)
    }
}
