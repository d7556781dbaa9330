import DequeModule
import NIOCore
import NIOHTTP1

/// A complete request.
struct ReceivedRequest {
    var head: HTTPRequestHead
    var body = ByteBuffer()
    /// When the head arrived, nanoseconds of CLOCK_MONOTONIC.
    var accepted: UInt64
    var isTooLarge = false
}

/// Assembles requests from the HTTP decoder's parts and queues them, within size limits. Performs no I/O.
struct RequestAssembler {
    enum Action {
        case none
        /// The client waits for "100 Continue" before it sends the body (RFC 9110, section 10.1.1).
        case sayContinue
        /// A request is waiting in `next`.
        case ready
        /// Too much is queued; the connection must be closed.
        case close
    }

    private let maximumBody: Int
    private var current: ReceivedRequest?
    private var waiting: Deque<ReceivedRequest> = []
    private var waitingBytes = 0
    /// Bytes discarded of the current request.
    private var discarded = 0

    /// Maximum number of requests that a client may pipeline.
    private static let maximumWaiting = 64

    init(maximumBody: Int) { self.maximumBody = maximumBody }

    /// Removes and returns the oldest waiting request.
    mutating func next() -> ReceivedRequest? {
        guard let request = waiting.popFirst() else { return nil }
        waitingBytes -= request.body.readableBytes
        return request
    }

    /// Whether the rest of a rejected request is still arriving.
    var isDiscarding: Bool { current?.isTooLarge ?? false }

    /// Processes one part of a request and returns the action to take.
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

    /// Queues a request, or asks to close the connection if too many requests or bytes are waiting.
    private mutating func enqueue(_ request: ReceivedRequest) -> Action {
        waiting.append(request)
        waitingBytes += request.body.readableBytes
        return waiting.count > Self.maximumWaiting || waitingBytes > 2 * maximumBody ? .close : .ready
    }
}
