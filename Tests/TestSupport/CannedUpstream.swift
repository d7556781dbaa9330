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
    }

    private let server: any Channel
    private let counters: Counters

    package static func start(_ answers: [Answer]) async throws -> CannedUpstream {
        let counters = Counters()
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let handler = Answering(answers) { request in counters.requests.withLock { $0.append(request) } }
                    try channel.pipeline.syncOperations.addHandler(handler)
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

    package func close() async { try? await server.close() }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let answers: [Answer]
        private let answered: (String) -> Void
        private var request = ""

        init(_ answers: [Answer], answered: @escaping (String) -> Void) {
            self.answers = answers
            self.answered = answered
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            request += String(buffer: unwrapInboundIn(data))
            guard let answer = answers.first(where: { request.contains($0.word) }) else { return }
            answered(request)
            request = ""
            let channel = context.channel
            let written = channel.writeAndFlush(ByteBuffer(string: answer.bytes))
            if answer.closes { written.whenComplete { _ in channel.close(promise: nil) } }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
