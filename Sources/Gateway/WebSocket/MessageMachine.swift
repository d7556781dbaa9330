import NIOCore
import NIOWebSocket
import Support

/// Assembles messages from WebSocket frames and validates them according to RFC 6455 section 5. Does no I/O: the caller performs the
/// returned action.
///
/// `WebSocketFrameDecoder` has already checked frame sizes and the form of control frames.
struct MessageMachine {
    enum Action: Equatable {
        case none
        /// Handle a complete text message of valid UTF-8.
        case message(ByteBuffer)
        /// Handle the payload of one binary frame, or of one fragment of it.
        case binary(ByteBuffer)
        /// Answer a PING with this payload.
        case pong(ByteBuffer)
        /// Answer the peer's close frame; nil when it has no code.
        case closed(UInt16?)
        /// Close the connection because of a protocol violation.
        case fail(CloseCode)
        /// Send this close code and close the connection at once, because the peer's close frame is invalid and no other one will follow.
        case failAtOnce(CloseCode)
    }

    private enum State {
        /// Between messages. Next: `fragmented`, `fragmentedBinary`, `ended`.
        case idle
        /// The first fragments of a text message were received. Next: `idle`, `ended`.
        case fragmented(ByteBuffer)
        /// The first fragments of a binary message were received and passed on. Next: `idle`, `ended`.
        case fragmentedBinary
        /// Failed or closed by the peer; further frames are ignored. Final.
        case ended
    }

    private var state = State.idle
    /// Bytes of the incomplete message.
    var heldBytes: Int { if case .fragmented(let buffer) = state { buffer.readableBytes } else { 0 } }
    private let maximum: Int
    private let acceptsBinary: Bool

    /// - Parameters:
    ///   - maximum: bytes of a text message with all its fragments.
    ///   - acceptsBinary: whether binary frames are passed on; else they are a violation (1003).
    init(maximum: Int, acceptsBinary: Bool = false) {
        self.maximum = maximum
        self.acceptsBinary = acceptsBinary
    }

    /// Processes one frame from the client.
    mutating func receive(_ frame: WebSocketFrame) -> Action {
        if case .ended = state { return .none }
        // Without extensions the reserved bits must be 0 (section 5.2), and client frames must be masked (section 5.1).
        guard !frame.rsv1, !frame.rsv2, !frame.rsv3, frame.maskKey != nil else { return fail(.protocolError) }
        switch frame.opcode {
        case .text:
            guard case .idle = state else { return fail(.protocolError) }
            return data(frame.unmasked, last: frame.fin)
        case .continuation:
            if case .fragmentedBinary = state {
                if frame.fin { state = .idle }
                return .binary(frame.unmasked)
            }
            guard case .fragmented(var whole) = state else { return fail(.protocolError) }
            state = .idle
            var part = frame.unmasked
            guard whole.readableBytes + part.readableBytes <= maximum else { return fail(.messageTooBig) }
            whole.writeBuffer(&part)
            return data(whole, last: frame.fin)
        case .binary:
            guard acceptsBinary else { return fail(.unsupportedData) }
            guard case .idle = state else { return fail(.protocolError) }
            if !frame.fin { state = .fragmentedBinary }
            return .binary(frame.unmasked)
        case .ping: return .pong(frame.unmasked)
        case .pong: return .none
        case .connectionClose: return close(frame.unmasked)
        default: return fail(.protocolError)
        }
    }

    private mutating func data(_ buffer: ByteBuffer, last: Bool) -> Action {
        guard buffer.readableBytes <= maximum else { return fail(.messageTooBig) }
        guard last else {
            state = .fragmented(buffer)
            return .none
        }
        state = .idle
        guard String(validating: buffer.readableBytesView, as: UTF8.self) != nil else { return fail(.invalidPayload) }
        return .message(buffer)
    }

    private mutating func close(_ payload: ByteBuffer) -> Action {
        var payload = payload
        guard payload.readableBytes > 0 else {
            state = .ended
            return .closed(nil)
        }
        state = .ended
        guard let code = payload.readInteger(as: UInt16.self), Self.isLegal(code) else { return .failAtOnce(.protocolError) }
        guard String(validating: payload.readableBytesView, as: UTF8.self) != nil else { return .failAtOnce(.invalidPayload) }
        return .closed(code)
    }

    /// Section 7.4: 1004 to 1006 and 1015 must not be sent; 3000 to 4999 are for libraries and applications.
    private static func isLegal(_ code: UInt16) -> Bool {
        switch code {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }

    private mutating func fail(_ code: CloseCode) -> Action {
        state = .ended
        return .fail(code)
    }
}

extension WebSocketFrame {
    /// The unmasked payload. Unmasks eight bytes at a time.
    fileprivate var unmasked: ByteBuffer {
        var buffer = data
        guard let maskKey else { return buffer }
        let key = Array(maskKey)
        let word = UInt32(key[0]) | UInt32(key[1]) << 8 | UInt32(key[2]) << 16 | UInt32(key[3]) << 24
        var bytes = buffer.mutableReadableBytesSpan
        bytes.combine(withRepeated: word)
        return buffer
    }
}
