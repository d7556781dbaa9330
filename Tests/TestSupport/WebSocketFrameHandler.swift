import JSONCodec
import NIOCore
import NIOWebSocket

/// Stores received frames in the client's state.
final class WebSocketFrameHandler: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    private let state: Observed<WebSocketClient.State>
    private var message = ByteBuffer()

    init(_ state: Observed<WebSocketClient.State>) { self.state = state }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        switch frame.opcode {
        case .text, .continuation:
            message.writeImmutableBuffer(frame.unmaskedData)
            guard frame.fin else { return }
            take(String(buffer: message), context)
            message.clear()
        case .binary: state.update { $0.problems.append("a binary frame of \(frame.length) bytes") }
        case .ping: write(.pong, frame.unmaskedData, context)
        case .connectionClose:
            var data = frame.unmaskedData
            let code = data.readInteger(as: UInt16.self).map(Int.init) ?? 1005
            state.update { $0.closeCode = $0.closeCode ?? code }
            write(.connectionClose, frame.unmaskedData, context)
            context.close(promise: nil)
        default: break
        }
    }

    private func write(_ opcode: WebSocketOpcode, _ data: ByteBuffer, _ context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(WebSocketFrame(fin: true, opcode: opcode, maskKey: .random(), data: data)), promise: nil)
    }

    private static let types: Set = [
        "REGISTER_ACK", "RESPONSE", "INTERRUPT_ACK", "SESSION_INFO", "HEARTBEAT", "SESSION_WARN", "SHUTDOWN", "HEALTH_CHECK_ACK", "ERROR",
    ]

    private func take(_ text: String, _ context: ChannelHandlerContext) {
        let now = monotonicNanoseconds()
        if state.read({ $0.isRealtime }) {
            let event = try? JSON(parsing: text)
            let frame = WebSocketClient.Frame(type: event?["type"]?.string ?? "", payload: event ?? .null, time: now)
            return state.update { $0.waiting.append(frame) }
        }
        guard let json = try? JSON(parsing: text), json["version"]?.string == "1.0", let type = json["msg_type"]?.string,
            Self.types.contains(type),
            let payload = json["payload"], payload.object != nil, json["timestamp"]?.double != nil
        else { return state.update { $0.problems.append("not a frame of the protocol: \(text.prefix(200))") } }
        let replies = state.update { state -> Bool in
            let request = payload["request_id"]?.string
            switch type {
            case "RESPONSE":
                guard let request, state.requests[request] != nil else {
                    state.problems.append("a RESPONSE for a request that was never made: \(text.prefix(200))")
                    return false
                }
                state.requests[request]?.takeResponse(payload, at: now)
            case "ERROR":
                // The rejection of a duplicate has the id of the running request.
                if let request, state.requests[request] != nil, payload["error_code"]?.string != "DUPLICATE_REQUEST" {
                    state.requests[request]?.takeError(payload, at: now)
                }
                state.waiting.append(WebSocketClient.Frame(type: type, payload: payload, time: now))
            case "HEARTBEAT": return state.repliesToHeartbeats
            default: state.waiting.append(WebSocketClient.Frame(type: type, payload: payload, time: now))
            }
            return false
        }
        if replies {
            let session = state.value.session
            write(.text, ByteBuffer(string: WebSocketClient.envelope("HEARTBEAT_REPLY", .object(JSONObject()), session: session)), context)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) {
        state.update { $0.closeCode = $0.closeCode ?? 1006 }
        context.fireChannelInactive()
    }
}
