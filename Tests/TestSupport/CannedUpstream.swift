import NIOCore
import NIOPosix
import Synchronization

/// An upstream that answers with predefined bytes, selected by a word in the request.
package final class CannedUpstream: Sendable {
    package struct Answer: Sendable {
        /// Text that the request must contain.
        package var word: String
        package var bytes: String
        /// Whether the connection is closed after the bytes.
        package var closes: Bool

        package init(word: String, bytes: String, closes: Bool = true) {
            self.word = word
            self.bytes = bytes
            self.closes = closes
        }
    }

    private final class Counters: Sendable {
        let requests = Mutex<[String]>([])
        let answers: Mutex<[Answer]>
        let open = Mutex((now: 0, most: 0, closed: 0))

        init(_ answers: [Answer]) { self.answers = Mutex(answers) }
    }

    private let server: any Channel
    private let counters: Counters

    package static func start(_ answers: [Answer]) async throws -> CannedUpstream {
        let counters = Counters(answers)
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    counters.open.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1), $0.closed) }
                    channel.closeFuture.whenComplete { _ in counters.open.withLock { $0 = ($0.now - 1, $0.most, $0.closed + 1) } }
                    try channel.pipeline.syncOperations.addHandler(Answering(counters))
                }
            }
            .bind(host: "127.0.0.1", port: Ports.free()).get()
        return CannedUpstream(server: server, counters: counters)
    }

    private init(server: any Channel, counters: Counters) {
        self.server = server
        self.counters = counters
    }

    package var port: Int { server.localAddress?.port ?? 0 }
    package var url: String { "http://127.0.0.1:\(port)/v1" }

    /// The answered requests, in order of arrival.
    package var requests: [String] { counters.requests.withLock { $0 } }

    /// The connections that are open, the most at one time so far, and those that were closed.
    package var connections: (now: Int, most: Int, closed: Int) { counters.open.withLock { $0 } }

    /// Replaces the answers to later requests.
    package func replace(_ answers: [Answer]) { counters.answers.withLock { $0 = answers } }

    package func close() async { try? await server.close() }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let counters: Counters
        private var request = ""

        init(_ counters: Counters) { self.counters = counters }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            request += String(buffer: unwrapInboundIn(data))
            guard let answer = counters.answers.withLock({ $0.first { request.contains($0.word) } }) else { return }
            counters.requests.withLock { [request] in $0.append(request) }
            request = ""
            let channel = context.channel
            let written = channel.writeAndFlush(ByteBuffer(string: answer.bytes))
            if answer.closes { written.whenComplete { _ in channel.close(promise: nil) } }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
