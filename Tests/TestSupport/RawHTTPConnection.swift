import NIOCore
import NIOPosix

/// A TCP connection that the test closes. Received data is collected as text.
package final class RawHTTPConnection: Sendable {
    package let received = Observed("")
    private let channel: any Channel

    private final class Gatherer: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let received: Observed<String>
        init(_ received: Observed<String>) { self.received = received }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let text = String(buffer: unwrapInboundIn(data))
            received.update { $0 += text }
        }
        func channelInactive(context: ChannelHandlerContext) { received.update { $0 += "<closed>" } }
    }

    package init(_ port: Int, autoRead: Bool = true) async throws {
        let received = received
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.autoRead, value: autoRead)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Gatherer(received)) }
            }
            .connect(host: "127.0.0.1", port: port).get()
    }

    package func request(_ method: String, _ path: String, body: String = "", headers: [String] = [], key: String = "tenant-a-test-key")
        async throws
    {
        var head = ["\(method) \(path) HTTP/1.1", "Host: x", "Authorization: Bearer \(key)"] + headers
        if !body.isEmpty { head.append("Content-Length: \(body.utf8.count)") }
        try await channel.writeAndFlush(ByteBuffer(string: head.joined(separator: "\r\n") + "\r\n\r\n" + body))
    }

    /// Sends text unchanged.
    package func send(_ bytes: String) async throws { try await channel.writeAndFlush(ByteBuffer(string: bytes)) }

    package func send(_ bytes: [UInt8]) async throws { try await channel.writeAndFlush(ByteBuffer(bytes: bytes)) }

    /// Waits until the server has closed the connection.
    /// - Returns: all text received.
    package func end() async throws -> String {
        try await wait(for: "<closed>")
        return received.value
    }

    package func wait(for text: String) async throws {
        let _: Bool = try await received.wait({ "\(text) in \($0.suffix(500))" }) { $0.contains(text) ? true : nil }
    }

    package func close() async throws {
        do { try await channel.close() } catch ChannelError.alreadyClosed {
            // The server has closed the connection already.
        }
    }
}
