import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL

/// A server that reads requests and answers with any bytes, also invalid ones.
final class RawServer: Sendable {
    /// A request and its connection.
    struct Exchange: Sendable {
        let head: String
        let body: String
        /// The number of the connection, from 1. Connections that are accepted at the same time are numbered in any order.
        let connection: Int
        let channel: any Channel

        func send(_ text: String) { channel.writeAndFlush(ByteBuffer(string: text), promise: nil) }
        func send(_ bytes: [UInt8]) { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }
        func close() { channel.close(promise: nil) }

        /// Begins a chunked event stream with status 200.
        func beginStream() {
            send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
        func chunk(_ text: String) { send(String(text.utf8.count, radix: 16) + "\r\n" + text + "\r\n") }
        func endStream() { send("0\r\n\r\n") }

        func answer(_ status: String, _ headers: String = "", _ body: String, type: String = "application/json") {
            send("HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\n\(headers)Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
    }

    typealias Script = @Sendable (Exchange) -> Void

    private struct Counts {
        var accepted = 0
        var open = 0
        var requests: [Exchange] = []
    }

    private let channel: any Channel
    private let counts: NIOLockedValueBox<Counts>
    /// One element per closed connection: its number.
    let closed: AsyncStream<Int>

    var port: Int { channel.localAddress?.port ?? 0 }
    var url: String { "http://127.0.0.1:\(port)/v1" }
    var accepted: Int { counts.withLockedValue { $0.accepted } }
    var open: Int { counts.withLockedValue { $0.open } }
    var requests: [Exchange] { counts.withLockedValue { $0.requests } }

    /// - Parameter tls: nil for plain HTTP.
    init(host: String = "127.0.0.1", tls: NIOSSLContext? = nil, _ script: @escaping Script) async throws {
        let counts = NIOLockedValueBox(Counts())
        self.counts = counts
        let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
        closed = stream
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 2048)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                let number = counts.withLockedValue { counts in
                    counts.accepted += 1
                    counts.open += 1
                    return counts.accepted
                }
                channel.closeFuture.whenComplete { _ in
                    counts.withLockedValue { $0.open -= 1 }
                    continuation.yield(number)
                }
                return channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
                    try channel.pipeline.syncOperations.addHandler(
                        RequestReader { head, body in
                            let exchange = Exchange(head: head, body: body, connection: number, channel: channel)
                            counts.withLockedValue { $0.requests.append(exchange) }
                            script(exchange)
                        })
                }
            }
            .bind(host: host, port: 0).get()
    }

    func stop() async throws { try await channel.close() }

    private final class RequestReader: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var buffer = ""
        private let found: (String, String) -> Void

        init(_ found: @escaping (String, String) -> Void) { self.found = found }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            buffer += String(buffer: unwrapInboundIn(data))
            while let end = buffer.utf8.firstRange(of: "\r\n\r\n".utf8) {
                let head = String(buffer[..<end.lowerBound])
                let length =
                    head.lowercased().split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
                    .flatMap { Int($0.dropFirst(15).filter { $0 != " " }) } ?? 0
                let rest = Array(buffer.utf8[end.upperBound...])
                guard rest.count >= length else { return }
                buffer = String(decoding: rest[length...], as: UTF8.self)
                found(head, String(decoding: rest[..<length], as: UTF8.self))
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
