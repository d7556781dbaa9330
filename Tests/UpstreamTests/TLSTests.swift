import Contract
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import NIOSSL
import Testing

@testable import CurlTransport
@testable import Upstream

private let answer =
    #"data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}"# + "\n\ndata: [DONE]\n\n"

@Suite(.enabled("needs openssl") { CertificateAuthority.isPossible }, .timeLimit(.minutes(10)))
struct TLSTests {
    private static func stream(_ exchange: RawServer.Exchange) {
        exchange.beginStream()
        exchange.chunk(answer)
        exchange.endStream()
    }

    private static func ask(_ server: RawServer, host: String = "localhost", caFile: String?, connectTimeout: Duration = .seconds(60))
        async throws -> Recording
    {
        var settings = TransportSettings.forTests
        settings.caFile = caFile
        settings.connectTimeout = connectTimeout
        return try await Caller.with(settings: settings) { try await $0.ask(.at("https://\(host):\(server.port)/v1")) }
    }

    @Test func `only trusted servers receive requests`() async throws {
        try await CertificateAuthority.with { authority in
            let good = try await RawServer(tls: authority.server(names: "DNS:localhost"), Self.stream)
            let trusted = try await Self.ask(good, caFile: authority.file)
            #expect(trusted.result == .complete && trusted.text == "Hello", "\(String(describing: trusted.result))")
            let unknown = try await Self.ask(good, caFile: nil)
            let otherName = try await Self.ask(good, host: "127.0.0.1", caFile: authority.file)
            let noFile = try await Self.ask(good, caFile: "/nonexistent/ca.pem")
            let expired = try await RawServer(tls: authority.server(names: "DNS:localhost", days: -1), Self.stream)
            let late = try await Self.ask(expired, caFile: authority.file)
            let refused = [
                (unknown, "local issuer"), (otherName, "no alternative certificate subject name"), (late, "expired"), (noFile, "ca.pem"),
            ]
            for (recording, words) in refused {
                let failure = try #require(recording.failure?.failure)
                #expect(failure.code == .upstreamUnreachable && failure.message.contains(words), "\(failure)")
                #expect(recording.connected == 0 && !failure.message.contains("canary"))
            }
            #expect(good.requests.count == 1 && expired.requests.isEmpty, "no key was sent to an untrusted server")
            // A server without TLS.
            let plain = try await RawServer(Self.stream)
            let spoken = try await Self.ask(plain, caFile: authority.file, connectTimeout: .milliseconds(200))
            #expect(spoken.failure?.failure.code == .upstreamUnreachable)
            for server in [good, expired, plain] { try await server.stop() }
        }
    }

    @Test func `requests share one TLS handshake`() async throws {
        try await CertificateAuthority.with { authority in
            let server = try await RawServer(tls: authority.server(names: "DNS:localhost"), Self.stream)
            var settings = TransportSettings.forTests
            settings.caFile = authority.file
            try await Caller.with(settings: settings) { caller in
                for _ in 0..<5 {
                    let recording = try await caller.ask(.at("https://localhost:\(server.port)/v1"))
                    #expect(recording.result == .complete)
                }
            }
            #expect(server.accepted == 1 && server.requests.count == 5)
            try await server.stop()
        }
    }

    @Test func `HTTP/2 is used only if configured, and a cancel closes its connection`() async throws {
        try await CertificateAuthority.with { authority in
            let server = try await HTTP2Server.start(authority.server(names: "DNS:localhost", protocols: ["h2", "http/1.1"]))
            var settings = TransportSettings.forTests
            settings.caFile = authority.file
            for isSet in [false, true] {
                settings.http2 = isSet
                try await Caller.with(settings: settings) { caller in
                    let recording = try await caller.ask(.at("https://localhost:\(server.port)/v1")) { recorder, step in
                        if step == .produced { recorder.cancel() }
                    }
                    #expect(recording.text == "Hello", "\(String(describing: recording.result))")
                    #expect(server.seen == (isSet ? ["HTTP/1.1", "HTTP/2"] : ["HTTP/1.1"]))
                    guard isSet else { return }
                    // libcurl 7.88 would keep the connection and leave the stream open.
                    for await _ in server.closed { break }
                }
            }
            await server.stop()
        }
    }
}

/// Answers each request with one part of an endless stream, in the negotiated protocol.
private final class HTTP2Server: Sendable {
    private let channel: any Channel
    private let protocols: NIOLockedValueBox<[String]>
    /// One element per HTTP/2 connection that the client closed.
    let closed: AsyncStream<Void>

    var port: Int { channel.localAddress?.port ?? 0 }
    var seen: [String] { protocols.withLockedValue { $0 } }
    func stop() async { try? await channel.close() }

    static func start(_ tls: NIOSSLContext) async throws -> HTTP2Server {
        let protocols = NIOLockedValueBox<[String]>([])
        let (closed, continuation) = AsyncStream.makeStream(of: Void.self)
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers([
                        NIOSSLServerHandler(context: tls),
                        Answering({ name in protocols.withLockedValue { $0.append(name) } }, { continuation.yield(()) }),
                    ])
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return HTTP2Server(channel: channel, protocols: protocols, closed: closed)
    }

    private init(channel: any Channel, protocols: NIOLockedValueBox<[String]>, closed: AsyncStream<Void>) {
        self.channel = channel
        self.protocols = protocols
        self.closed = closed
    }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        private static let token = #"data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"# + "\n\n"

        private let speaks: (String) -> Void
        private let wasClosed: () -> Void
        private var bytes: [UInt8] = []
        private var isHTTP2: Bool?

        init(_ speaks: @escaping (String) -> Void, _ wasClosed: @escaping () -> Void) {
            self.speaks = speaks
            self.wasClosed = wasClosed
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            bytes += Array(buffer: unwrapInboundIn(data))
            guard bytes.count >= Self.preface.count else { return }
            if isHTTP2 == nil {
                let isHTTP2 = bytes.starts(with: Self.preface)
                self.isHTTP2 = isHTTP2
                speaks(isHTTP2 ? "HTTP/2" : "HTTP/1.1")
                if isHTTP2 {
                    bytes.removeFirst(Self.preface.count)
                    send(context, Self.frame(type: 4))
                } else {
                    send(context, Array("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\(Self.token)".utf8))
                }
            }
            if isHTTP2 == true { readFrames(context) }
        }

        /// RFC 9113, 4.1: length of three bytes, type, flags, stream.
        private func readFrames(_ context: ChannelHandlerContext) {
            while bytes.count >= 9 {
                let length = Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2])
                guard bytes.count >= 9 + length else { return }
                let (type, flags, stream) = (bytes[3], bytes[4], Int(bytes[7]) << 8 | Int(bytes[8]))
                bytes.removeFirst(9 + length)
                switch type {
                // HEADERS: answered with `:status: 200` (index 8 of HPACK's static table) and one piece of the body.
                case 1: send(context, Self.frame(type: 1, flags: 4, stream, [0x88]) + Self.frame(type: 0, stream, Array(Self.token.utf8)))
                // SETTINGS without ACK must be acknowledged.
                case 4 where flags & 1 == 0: send(context, Self.frame(type: 4, flags: 1))
                default: break
                }
            }
        }

        private func send(_ context: ChannelHandlerContext, _ bytes: [UInt8]) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: bytes)), promise: nil)
        }

        private static func frame(type: UInt8, flags: UInt8 = 0, _ stream: Int = 0, _ payload: [UInt8] = []) -> [UInt8] {
            let length = payload.count
            let head = [0, UInt8(length >> 8), UInt8(length & 0xFF), type, flags, 0, 0, UInt8(stream >> 8), UInt8(stream & 0xFF)]
            return head + payload
        }

        func channelInactive(context: ChannelHandlerContext) {
            if isHTTP2 == true { wasClosed() }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
