import NIOCore
import Support

/// A message that Redis sends on a connection with subscriptions.
enum Push {
    case message(channel: ByteBuffer, payload: ByteBuffer)
    case subscribed(channel: ByteBuffer)
    case unsubscribed(channel: ByteBuffer)
    case pong
    case error(String)
}

/// Builds pushes from the calls of a `ReplyReader` without intermediate values.
///
/// Only the payload of a message is allocated. The channel's name is written into a reused buffer, which is copied only if the receiver
/// keeps it.
final class PushBuilder: ReplySink {
    private enum Kind { case message, subscribe, unsubscribe, pong, error, other }

    private var kind = Kind.other
    private var index = 0
    private var arrays = 0
    private var channel = ByteBuffer()
    private var payload = ByteBuffer()
    private var text = ""
    private let receive: (Push) -> Void

    init(receive: @escaping (Push) -> Void) {
        self.receive = receive
    }

    func array(count: Int) { arrays += 1 }

    func bulk(_ bytes: Span<UInt8>) {
        switch index {
        case 0: kind = Self.kind(bytes)
        case 1:
            channel.clear()
            channel.writeBytes(bytes.raw)
        default:
            payload = ByteBuffer()
            payload.writeBytes(bytes.raw)
        }
        index += 1
    }

    func simple(_ bytes: Span<UInt8>) {
        if index == 0 { kind = bytes.equals("PONG") ? .pong : .other }
        index += 1
    }

    func error(_ bytes: Span<UInt8>) {
        kind = .error
        text = String(decoding: bytes)
        index += 1
    }

    func integer(_ value: Int64) { index += 1 }
    func null() { index += 1 }

    func finish() throws(RedisError) {
        defer {
            kind = .other
            index = 0
            arrays = 0
            payload = ByteBuffer()
        }
        switch (kind, arrays, index) {
        case (.message, 1, 3): receive(.message(channel: channel, payload: payload))
        case (.subscribe, 1, 3): receive(.subscribed(channel: channel))
        case (.unsubscribe, 1, 3): receive(.unsubscribed(channel: channel))
        case (.pong, _, _): receive(.pong)
        case (.error, 0, _): receive(.error(text))
        default: throw RedisError(.protocolViolation, "unexpected data from Redis on a connection with subscriptions")
        }
    }

    private static func kind(_ bytes: Span<UInt8>) -> Kind {
        switch bytes.count {
        case 7 where bytes.equals("message"): .message
        case 9 where bytes.equals("subscribe"): .subscribe
        case 11 where bytes.equals("unsubscribe"): .unsubscribe
        case 8 where bytes.equals("smessage"): .message
        case 10 where bytes.equals("ssubscribe"): .subscribe
        case 12 where bytes.equals("sunsubscribe"): .unsubscribe
        case 4 where bytes.equals("pong"): .pong
        default: .other
        }
    }
}
