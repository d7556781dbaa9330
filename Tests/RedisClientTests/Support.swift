import Logging
import NIOCore
import NIOPosix
import TestSupport

@testable import RedisClient

func withClient<Value: Sendable>(
    _ url: String, settings: RedisSettings = .forTests, log: CapturedLog = CapturedLog(), name: String = "test",
    isolation: isolated (any Actor)? = #isolation, _ body: (RedisClient) async throws -> Value
) async throws -> Value {
    let client = RedisClient(
        url: try RedisURL(url), settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: name, logger: log.logger)
    async let running: Void = client.run()
    defer { client.shutdown() }
    let value = try await body(client)
    client.shutdown()
    await running
    return value
}

extension RedisClient {
    /// For a single server.
    var server: String? { server(for: "") }
    var connections: Int { connections(for: "") }
}

func withSubscriber<Value: Sendable>(
    _ url: String, settings: RedisSettings = .forTests, log: CapturedLog = CapturedLog(), name: String = "test-subscriber",
    isolation: isolated (any Actor)? = #isolation, _ body: (RedisSubscriber) async throws -> Value
) async throws -> Value {
    let subscriber = RedisSubscriber(
        url: try RedisURL(url), settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: name, logger: log.logger)
    async let running: Void = subscriber.run()
    defer { subscriber.shutdown() }
    let value = try await body(subscriber)
    subscriber.shutdown()
    await running
    return value
}

/// The error code of an operation; nil if it succeeds.
func code(_ body: () async throws -> some Sendable) async -> RedisError.Code? {
    do {
        _ = try await body()
        return nil
    } catch {
        return (error as? RedisError)?.code
    }
}

/// The number of PINGs that the server has answered.
func pings(_ server: PrivateRedis) async throws -> Int {
    let text = try await server.command("INFO", "commandstats").string ?? ""
    guard let line = text.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix("cmdstat_ping:calls=") }) else { return 0 }
    return Int(line.dropFirst("cmdstat_ping:calls=".count).prefix { $0.isNumber }) ?? 0
}

/// A logger's output.
final class CapturedLog: Sendable {
    struct Line: Sendable {
        let level: Logger.Level
        let message: String
        let metadata: String
    }

    let lines = Observed<[Line]>([])

    var logger: Logger { Logger(label: "test") { _ in Handler(log: self) } }

    func lines(_ message: String) -> [Line] { lines.read { $0.filter { $0.message == message } } }

    func wait(for message: String) async throws -> Line {
        try await lines.wait({ "a log line \"\(message)\" among \($0)" }) { lines in
            lines.first { $0.message == message }
        }
    }

    private struct Handler: LogHandler {
        let log: CapturedLog
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let all = metadata.merging(event.metadata ?? [:]) { $1 }
            log.lines.update { $0.append(Line(level: event.level, message: "\(event.message)", metadata: "\(all)")) }
        }
    }
}

/// The values read from pieces of input, and the error at which reading stopped.
func readReplies(
    _ pieces: some Sequence<some Collection<UInt8>>, replyMaximum: Int = ReplyReader.maximumReply
) -> (values: [RESPValue], error: RedisError?) {
    var values: [RESPValue] = []
    do throws(RedisError) {
        let reader = try ReplyReader(sink: ReplyBuilder { values.append($0) }, replyMaximum: replyMaximum)
        for piece in pieces {
            try reader.feed(ByteBuffer(bytes: piece))
            while try reader.next() {}
        }
    } catch {
        return (values, error)
    }
    return (values, nil)
}

/// A server that answers the handshake and then every command with the same bytes.
final class ScriptedServer: Sendable {
    let port: Int
    private let channel: any Channel

    /// - Parameters:
    ///   - ping: the answers to PING in the handshakes of successive connections. The last one is repeated.
    ///   - answer: the answer to everything after the handshake.
    static func start(ping: [String] = ["+PONG\r\n"], answer: [UInt8] = []) async throws -> ScriptedServer {
        let connections = Observed(0)
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let number = connections.update { count in
                        defer { count += 1 }
                        return count
                    }
                    let greeting = "+OK\r\n" + ping[min(number, ping.count - 1)]
                    try channel.pipeline.syncOperations.addHandler(Handler(greeting: greeting, answer: answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return ScriptedServer(channel: channel)
    }

    private init(channel: any Channel) {
        self.channel = channel
        port = channel.localAddress?.port ?? 0
    }

    var url: String { "redis://127.0.0.1:\(port)" }
    func close() async { try? await channel.close() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let greeting: String
        private let answer: [UInt8]
        private var isGreeted = false

        init(greeting: String, answer: [UInt8]) {
            self.greeting = greeting
            self.answer = answer
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let text = String(buffer: unwrapInboundIn(data))
            if !isGreeted {
                guard text.contains("PING\r\n") else { return }
                isGreeted = true
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: greeting)), promise: nil)
            } else {
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: answer)), promise: nil)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

extension RESPValue {
    static func text(_ text: String) -> RESPValue { .bulk(ByteBuffer(string: text)) }

    /// The value in RESP2 encoding.
    var encoded: [UInt8] {
        switch self {
        case .null: Array("$-1\r\n".utf8)
        case .simple(let text): Array("+\(text)\r\n".utf8)
        case .error(let text): Array("-\(text)\r\n".utf8)
        case .integer(let number): Array(":\(number)\r\n".utf8)
        case .bulk(let buffer): Array("$\(buffer.readableBytes)\r\n".utf8) + Array(buffer.readableBytesView) + [13, 10]
        case .array(let values): Array("*\(values.count)\r\n".utf8) + values.flatMap(\.encoded)
        }
    }
}

extension Result {
    var error: Failure? {
        if case .failure(let error) = self { error } else { nil }
    }
}
