import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization
import Testing

@testable import Gateway

@Suite struct AcceptErrorTests {
    /// Collects log messages.
    private struct Collector: LogHandler {
        let messages: Messages
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) { messages.texts.withLock { $0.append(event.message.description) } }
    }

    private final class Messages: Sendable {
        let texts = Mutex<[String]>([])
    }

    @Test func `an episode of errors is logged once at its begin and once at its end`() throws {
        let messages = Messages()
        var now = NIODeadline.uptimeNanoseconds(0)
        let channel = EmbeddedChannel()
        let handler = AcceptErrorHandler(logger: Logger(label: "test") { _ in Collector(messages: messages) }) { now }
        try channel.pipeline.syncOperations.addHandler(handler)
        func accept() throws {
            try channel.writeInbound(EmbeddedChannel() as any Channel)
            #expect(try channel.readInbound(as: (any Channel).self) != nil)
        }
        func fail() {
            channel.pipeline.fireErrorCaught(IOError(errnoCode: 24, reason: "accept"))
            // The embedded channel keeps the errors that pass the handler.
            #expect(throws: Never.self) { try channel.throwIfErrorCaught() }
        }
        try accept()
        #expect(messages.texts.withLock { $0 }.isEmpty)
        for _ in 0..<100 {
            fail()
            now = now + .seconds(1)
            // One descriptor became free.
            try accept()
        }
        #expect(messages.texts.withLock { $0 } == ["connections cannot be accepted"])
        now = now + AcceptErrorHandler.calm
        try accept()
        try accept()
        #expect(messages.texts.withLock { $0 } == ["connections cannot be accepted", "connections are accepted again"])
        fail()
        #expect(messages.texts.withLock { $0.count } == 3)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    /// With the listener registered, the event loop would try again at once.
    @Test(arguments: [(CInt(24), true), (23, true), (103, false)])
    func `accepting stops for a while for want of resources`(_ code: CInt, _ stops: Bool) throws {
        let channel = EmbeddedChannel()
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        try channel.pipeline.syncOperations.addHandler(AcceptErrorHandler(logger: logger))
        func autoRead() -> [Bool] { channel.options.compactMap { $0.value as? Bool } }
        for _ in 0..<3 {
            channel.pipeline.fireErrorCaught(IOError(errnoCode: code, reason: "accept"))
        }
        #expect(autoRead() == (stops ? [false] : []))
        channel.embeddedEventLoop.advanceTime(by: AcceptErrorHandler.pause)
        #expect(autoRead() == (stops ? [true] : []))
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    /// The server reads its connections from an asynchronous sequence, which an error at the end of the pipeline would end.
    @Test(arguments: [true, false]) func `an error does not end the sequence of connections`(_ isSystemCall: Bool) async throws {
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try await ServerBootstrap(group: group).bind(host: "127.0.0.1", port: 0) { channel in
            channel.eventLoop.makeSucceededFuture(channel)
        }
        let port = try #require(server.channel.localAddress?.port)
        try await server.channel.eventLoop.submit {
            let operations = server.channel.pipeline.syncOperations
            try operations.addHandler(AcceptErrorHandler(logger: logger), position: .first)
        }.get()
        try await server.executeThenClose { connections in
            let error: any Error = isSystemCall ? IOError(errnoCode: 24, reason: "accept") : ChannelError.unknownLocalAddress
            // From the beginning of the pipeline, as the channel does it.
            server.channel.pipeline.fireErrorCaught(error)
            let client = try await ClientBootstrap(group: group).connect(host: "127.0.0.1", port: port).get()
            var iterator = connections.makeAsyncIterator()
            let accepted = try await iterator.next()
            #expect(accepted?.remoteAddress?.port == client.localAddress?.port)
            try await client.close()
        }
        try await group.shutdownGracefully()
    }
}
