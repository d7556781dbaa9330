import Contract
import JSONCodec
import Logging
import NIOCore
import NIOPosix
import Simulator

/// Runs `body` with a simulator on a free port and two event loops.
func withSimulator(_ settings: SimulatorSettings = SimulatorSettings(), _ body: (Int) async throws -> Void) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
    let server = SimulatorServer(settings: settings, group: group, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    let result: Result<Void, any Error>
    do {
        let address = try await server.start()
        try await body(address.port ?? 0)
        result = .success(())
    } catch {
        result = .failure(error)
    }
    await server.shutdown()
    try await group.shutdownGracefully()
    try result.get()
}

struct Response {
    var status: Int
    var head: String
    /// The body without chunk framing.
    var body: String
    /// The content of each chunk; one element for a body without chunks.
    var chunks: [String]

    func header(_ name: String) -> String? {
        for line in head.split(separator: "\r\n") {
            let sides = line.split(separator: ":", maxSplits: 1)
            if sides.count == 2, sides[0].lowercased() == name { return sides[1].trimmed }
        }
        return nil
    }

    /// The payloads of the `data:` lines, one per event.
    var events: [String] {
        body.split(separator: "\n\n").map { event in
            event.split(separator: "\n").filter { $0.hasPrefix("data:") }
                .map { $0.dropFirst($0.hasPrefix("data: ") ? 6 : 5) }.joined(separator: "\n")
        }
    }

    func json() throws -> JSON { try JSON(parsing: body) }
}

extension Substring {
    var trimmed: String { String(drop { $0 == " " }) }
}

/// The connection ended before the expected text was received.
struct Ended: Error {
    var received: String
}

/// A client without an HTTP implementation, for use in one task.
final class RawClient {
    private let channel: any Channel
    private var iterator: AsyncStream<ByteBuffer>.Iterator
    private(set) var received: [UInt8] = []

    init(port: Int, reads: Bool = true, receiveBuffer: Int? = nil) async throws {
        let (stream, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: reads)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Collector(continuation)) }
            }
        if let receiveBuffer { bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: receiveBuffer) }
        channel = try await bootstrap.connect(host: "127.0.0.1", port: port).get()
        iterator = stream.makeAsyncIterator()
    }

    func send(_ text: String) async throws { try await channel.writeAndFlush(ByteBuffer(string: text)) }

    func close() async throws { try await channel.close() }

    func startReading() async throws { try await channel.setOption(.autoRead, value: true).get() }

    /// - Returns: false at the end of the connection.
    func more() async -> Bool {
        guard let buffer = await iterator.next(isolation: #isolation) else { return false }
        received.append(contentsOf: buffer.readableBytesView)
        return true
    }

    var text: String { String(decoding: received, as: UTF8.self) }

    func waitFor(_ part: String) async throws {
        while !text.contains(part) {
            guard await more() else { throw Ended(received: text) }
        }
    }

    /// Everything received until the end of the connection.
    func rest() async -> String {
        while await more() {}
        return text
    }

    /// Removes the next complete response from the received bytes.
    func response() async throws -> Response {
        var reader = ResponseReader()
        while true {
            if let response = reader.read(received) {
                received.removeFirst(reader.position)
                return response
            }
            guard await more() else { throw Ended(received: text) }
        }
    }
}

/// Reads one response incrementally.
private struct ResponseReader {
    private(set) var position = 0
    private var response: Response?
    private var body: [UInt8] = []

    mutating func read(_ bytes: [UInt8]) -> Response? {
        if response == nil {
            guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
            let head = String(decoding: bytes[..<end.lowerBound], as: UTF8.self)
            response = Response(status: Int(head.split(separator: " ")[1]) ?? 0, head: head, body: "", chunks: [])
            position = end.upperBound
        }
        guard response?.header("transfer-encoding") == "chunked" else {
            let count = response?.header("content-length").flatMap(Int.init) ?? 0
            guard bytes.count >= position + count else { return nil }
            let text = String(decoding: bytes[position..<position + count], as: UTF8.self)
            position += count
            response?.body = text
            response?.chunks = [text]
            return response
        }
        while let lineEnd = bytes[position...].firstRange(of: Array("\r\n".utf8)),
            let size = Int(String(decoding: bytes[position..<lineEnd.lowerBound], as: UTF8.self), radix: 16),
            bytes.count >= lineEnd.upperBound + size + 2
        {
            let chunk = bytes[lineEnd.upperBound..<lineEnd.upperBound + size]
            position = lineEnd.upperBound + size + 2
            if size == 0 {
                response?.body = String(decoding: body, as: UTF8.self)
                return response
            }
            body.append(contentsOf: chunk)
            response?.chunks.append(String(decoding: chunk, as: UTF8.self))
        }
        return nil
    }
}

private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let continuation: AsyncStream<ByteBuffer>.Continuation

    init(_ continuation: AsyncStream<ByteBuffer>.Continuation) { self.continuation = continuation }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
    func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// HTTP requests as text.
enum RequestText {
    static func http(_ method: String, _ path: String, body: String = "", headers: [String] = []) -> String {
        var lines = ["\(method) \(path) HTTP/1.1", "Host: 127.0.0.1"] + headers
        if !body.isEmpty { lines += ["Content-Type: application/json", "Content-Length: \(body.utf8.count)"] }
        return lines.joined(separator: "\r\n") + "\r\n\r\n" + body
    }

    static func chat(
        _ model: String, stream: Bool = true, tag: String = "", usage: Bool = false,
        messages: String = #"[{"role":"user","content":"hello"}]"#,
        more: String = "", headers: [String] = []
    ) -> String {
        let user = tag.isEmpty ? "" : #","user":"\#(tag)""#
        let options = usage ? #","stream_options":{"include_usage":true}"# : ""
        let body = #"{"model":"\#(model)","stream":\#(stream),"messages":\#(messages)\#(user)\#(options)\#(more)}"#
        return http("POST", "/v1/chat/completions", body: body, headers: headers)
    }
}

/// The simulator's records of requests.
enum RecordedRequests {
    static func requests(_ port: Int, _ query: String = "") async throws -> [JSON] {
        let client = try await RawClient(port: port)
        try await client.send(RequestText.http("GET", "/sim/requests" + query))
        let answer = try await client.response().json()
        try await client.close()
        return answer["requests"]?.array ?? []
    }

    /// Waits until the request with this tag satisfies a condition.
    static func request(_ port: Int, tag: String, until isReached: (JSON) -> Bool) async throws -> JSON {
        while true {
            if let found = try await requests(port, "?tag=" + tag).first, isReached(found) { return found }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    static func ended(_ port: Int, tag: String) async throws -> JSON {
        try await request(port, tag: tag) { $0["how"]?.string != nil }
    }
}

/// The text of a chat stream: the content of all deltas.
func content(of response: Response) throws -> String {
    try response.events.filter { $0 != "[DONE]" }.map { event in
        try JSON(parsing: event)["choices"]?[0]?["delta"]?["content"]?.string ?? ""
    }.joined()
}

func words(_ range: Range<Int>) -> String { range.map { " w\($0)" }.joined() }
