import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import Observability
import OperatorTools

/// A registered WebSocket of the measuring client. Request ids are the indices of the reader's streams.
struct BenchSocket: Sendable {
    /// Concurrent requests per session; below the gateway's default limit of 64.
    static let requestsEach = 32

    private let channel: any Channel
    private let session: String

    /// Connects and registers.
    /// - Parameter reader: runs on the same event loop.
    /// - Throws: `CommandFailure` with status 69 when the gateway is unreachable.
    static func connect(to address: ChatAddress, key: String?, eventLoop: any EventLoop, reader: StreamReader) async throws -> BenchSocket {
        let registered = eventLoop.makePromise(of: String.self)
        let channel: any Channel
        do {
            channel = try await ChatSocket.open(to: address, group: eventLoop) {
                BenchSocketHandler(reader: reader, registered: registered)
            }
        } catch {
            registered.fail(error)
            throw CommandFailure(
                .unavailable, "sluice: no gateway answers at \(address): \(error) (--url or SLUICE_LISTEN sets its address)")
        }
        let socket = BenchSocket(channel: channel, session: "")
        socket.send(
            "REGISTER",
            [
                "auth": ["type": "API_KEY", "api_key": .string(key ?? "none")], "platform": "APP", "require_tts": false,
                "enable_srs": false,
                "function_calling": [],
            ])
        return BenchSocket(channel: channel, session: try await registered.futureResult.get())
    }

    /// Sends the request of a stream.
    func ask(_ index: Int, model: SimulatedModel, speaks: Bool = false) {
        send(
            "REQUEST",
            [
                "request_id": .string(String(index)), "data_type": "TEXT", "stream_flag": false, "stream_seq": 0, "content": ["text": "go"],
                "model": .string(model.name), "require_tts": .bool(speaks),
            ])
    }

    /// Interrupts the request of a stream.
    func interrupt(_ index: Int) {
        send("INTERRUPT", ["interrupt_request_id": .string(String(index)), "reason": .string(InterruptReason.userStop)])
    }

    /// Interrupts all requests of the session.
    func interruptAll() { send("INTERRUPT", ["reason": .string(InterruptReason.userStop)]) }

    func close() async {
        send("SHUTDOWN", ["reason": "done"])
        try? await channel.close()
    }

    private func send(_ type: String, _ payload: JSON) {
        let message: JSON = [
            "version": "1.0", "msg_type": .string(type), "session_id": .string(session), "payload": payload,
            "timestamp": .integer(Timestamp.now.milliseconds),
        ]
        channel.writeAndFlush(
            WebSocketFrame(fin: true, opcode: .text, maskKey: .random(), data: ByteBuffer(bytes: message.bytes)), promise: nil)
    }
}

/// Passes the tokens and ends of answers to the reader. Runs on the channel's event loop.
private final class BenchSocketHandler: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    private struct Closed: Error, CustomStringConvertible {
        let description: String
    }

    private let reader: StreamReader
    private let registered: EventLoopPromise<String>

    init(reader: StreamReader, registered: EventLoopPromise<String>) {
        self.reader = reader
        self.registered = registered
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        switch frame.opcode {
        case .text: message(frame.data.readableBytesUInt8Span, context)
        case .ping:
            context.writeAndFlush(
                wrapOutboundOut(WebSocketFrame(fin: true, opcode: .pong, maskKey: .random(), data: frame.data)), promise: nil)
        case .connectionClose: context.close(promise: nil)
        default: break
        }
    }

    private func message(_ bytes: Span<UInt8>, _ context: ChannelHandlerContext) {
        if TokenScan.contains("\"msg_type\":\"RESPONSE\"", in: bytes) {
            guard let index = TokenScan.number(after: "\"request_id\":\"", in: bytes) else { return }
            if reader.recordsVoice, TokenScan.number(after: "\"voice_stream_seq\":", in: bytes) != nil {
                return reader.assumeIsolated { $0.receivedVoice(index) }
            }
            let tokens = TokenScan.tokens(in: bytes)
            let job = TokenScan.string(after: "\"job_id\":\"", in: bytes)
            let isLast = tokens == nil && TokenScan.contains("\"text_stream_seq\":-1", in: bytes)
            reader.assumeIsolated { reader in
                if let job { reader.named(index, job) }
                reader.received(index, tokens: tokens, isLast: isLast)
            }
        } else if TokenScan.contains("\"msg_type\":\"INTERRUPT_ACK\"", in: bytes) {
            guard let index = TokenScan.number(after: "\"interrupt_request_id\":\"", in: bytes) else { return }
            reader.assumeIsolated { $0.acknowledged(index) }
        } else if TokenScan.contains("\"msg_type\":\"REGISTER_ACK\"", in: bytes) {
            registered.succeed(TokenScan.string(after: "\"session_id\":\"", in: bytes) ?? "")
        } else if TokenScan.contains("\"msg_type\":\"HEARTBEAT\"", in: bytes) {
            let pong = WebSocketFrame(fin: true, opcode: .pong, maskKey: .random(), data: ByteBuffer())
            context.writeAndFlush(wrapOutboundOut(pong), promise: nil)
        } else if TokenScan.contains("\"msg_type\":\"ERROR\"", in: bytes) {
            if let index = TokenScan.number(after: "\"request_id\":\"", in: bytes) {
                reader.assumeIsolated { $0.failed(index) }
            } else {
                registered.fail(Closed(description: TokenScan.string(after: "\"error_msg\":\"", in: bytes) ?? "registration failed"))
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        registered.fail(Closed(description: "the gateway closed the socket"))
        context.fireChannelInactive()
    }
}
