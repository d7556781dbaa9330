import DequeModule
import NIOCore
import NIOHTTP1

/// One whole request.
struct ReceivedRequest {
    var head: HTTPRequestHead
    var body = ByteBuffer()
    /// When its head was there, ns of CLOCK_MONOTONIC.
    var accepted: UInt64
    var isTooLarge = false
}

/// Puts requests together from the decoder's parts, in order, within bounds. Knows no sockets.
struct RequestAssembler {
    enum Action {
        case none
        /// The client waits for leave to send its body (RFC 9110 section 10.1.1).
        case sayContinue
        /// `next` has something new.
        case ready
        /// More than may wait: the connection is to close.
        case close
    }

    private let maximumBody: Int
    private var current: ReceivedRequest?
    private var waiting: Deque<ReceivedRequest> = []
    private var waitingBytes = 0
    private var discarded = 0

    /// Requests that a client may send ahead of their answers.
    private static let maximumWaiting = 64

    init(maximumBody: Int) { self.maximumBody = maximumBody }

    mutating func next() -> ReceivedRequest? {
        guard let request = waiting.popFirst() else { return nil }
        waitingBytes -= request.body.readableBytes
        return request
    }

    /// Bytes of a request that was already refused are still coming in.
    var isDiscarding: Bool { current?.isTooLarge ?? false }

    mutating func take(_ part: HTTPServerRequestPart, at now: UInt64) -> Action {
        switch part {
        case .head(let head):
            var request = ReceivedRequest(head: head, accepted: now)
            let length = head.headers.first(name: "content-length").flatMap(Int.init) ?? 0
            request.isTooLarge = length > maximumBody
            current = request
            discarded = 0
            if request.isTooLarge { return enqueue(request) }
            let expects = head.headers["expect"].contains { $0.lowercased() == "100-continue" }
            return expects && waiting.isEmpty ? .sayContinue : .none
        case .body(var bytes):
            guard current != nil else { return .none }
            if isDiscarding {
                discarded += bytes.readableBytes
                return discarded > 4 * maximumBody ? .close : .none
            }
            if current?.body.readableBytes == 0 { current?.body = bytes } else { current?.body.writeBuffer(&bytes) }
            guard let request = current, request.body.readableBytes > maximumBody else { return .none }
            current?.isTooLarge = true
            current?.body = ByteBuffer()
            return enqueue(ReceivedRequest(head: request.head, accepted: request.accepted, isTooLarge: true))
        case .end:
            guard let request = current else { return .none }
            current = nil
            return request.isTooLarge ? .none : enqueue(request)
        }
    }

    private mutating func enqueue(_ request: ReceivedRequest) -> Action {
        waiting.append(request)
        waitingBytes += request.body.readableBytes
        return waiting.count > Self.maximumWaiting || waitingBytes > 2 * maximumBody ? .close : .ready
    }
}
