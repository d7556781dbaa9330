import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import NIOPosix

package struct HTTPAnswer: Sendable {
    package var status = 0
    /// Header fields with names in lower case.
    package var headers: [String: String] = [:]
    package var body = ""
    package var json: JSON? { try? JSON(parsing: body) }
}

/// One HTTP/1.1 request on a connection of its own to a port of the loopback address.
package enum HTTPCall {
    package static func get(_ port: Int, _ path: String, headers: [String: String] = [:], deadline: TimeAmount = .seconds(40)) async throws
        -> HTTPAnswer
    {
        try await send(.GET, port, path, headers: headers, deadline: deadline)
    }

    package static func post(_ port: Int, _ path: String, _ body: JSON, headers: [String: String] = [:]) async throws -> HTTPAnswer {
        try await send(.POST, port, path, headers: headers.merging(["content-type": "application/json"]) { old, _ in old }, body: body.text)
    }

    package static func send(
        _ method: HTTPMethod, _ port: Int, _ path: String, headers: [String: String] = [:], body: String = "",
        deadline: TimeAmount = .seconds(40)
    ) async throws -> HTTPAnswer {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let promise = loop.makePromise(of: HTTPAnswer.self)
        let channel: any Channel
        do {
            channel = try await ClientBootstrap(group: loop).connectTimeout(.seconds(120))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        try channel.pipeline.syncOperations.addHandler(AnswerCollector(promise))
                    }
                }
                .connect(host: "127.0.0.1", port: port).get()
        } catch {
            promise.fail(error)
            throw error
        }
        let alarm = loop.scheduleTask(in: deadline) { channel.close(promise: nil) }
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers.add(name: "host", value: "127.0.0.1:\(port)")
        head.headers.add(name: "connection", value: "close")
        for (name, value) in headers { head.headers.add(name: name, value: value) }
        if !body.isEmpty || method == .POST { head.headers.add(name: "content-length", value: "\(body.utf8.count)") }
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        if !body.isEmpty { channel.write(HTTPClientRequestPart.body(.byteBuffer(ByteBuffer(string: body))), promise: nil) }
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        defer {
            alarm.cancel()
            channel.close(promise: nil)
        }
        return try await promise.futureResult.get()
    }
}

private final class AnswerCollector: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    private var promise: EventLoopPromise<HTTPAnswer>?
    private var answer = HTTPAnswer()

    init(_ promise: EventLoopPromise<HTTPAnswer>) { self.promise = promise }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            answer.status = Int(head.status.code)
            answer.headers = Dictionary(head.headers.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { "\($0), \($1)" })
        case .body(let bytes): answer.body += String(buffer: bytes)
        case .end:
            promise?.succeed(answer)
            promise = nil
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise?.fail(error)
        promise = nil
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        promise?.fail(ChannelError.eof)
        promise = nil
        context.fireChannelInactive()
    }
}
