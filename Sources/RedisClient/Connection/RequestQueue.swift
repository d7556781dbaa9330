import DequeModule
import NIOCore

/// The commands of one client in their order: those that wait for a connection and those that wait for their replies. No I/O.
struct RequestQueue {
    struct Request {
        /// Replies due.
        let count: Int
        /// On the wire.
        let bytes: Int
        let deadline: NIODeadline
        /// When its caller asked for it.
        var begun = NIODeadline.uptimeNanoseconds(0)
        let completion: CommandCore.Completion
        /// What ECHO must answer, where the request is one that checks the order of the replies.
        var mark: String?
    }

    enum Received {
        case more
        case complete(Request, [RESPValue])
        /// Nothing was in flight.
        case unasked
    }

    private let waitingMaximum: Int
    private let inFlightMaximum: Int
    /// Of waiting requests, and of those in flight, each.
    private let bytesMaximum: Int
    private var waitingBytes = 0
    private var inFlightBytes = 0
    private var waiting: Deque<(request: Request, buffer: ByteBuffer)> = []
    private var inFlight: Deque<Request> = []
    /// Of the oldest in flight: Redis answers in order.
    private var replies: [RESPValue] = []

    init(waitingMaximum: Int, inFlightMaximum: Int, bytesMaximum: Int) {
        self.bytesMaximum = bytesMaximum
        self.waitingMaximum = waitingMaximum
        self.inFlightMaximum = inFlightMaximum
    }

    var isEmptyInFlight: Bool { inFlight.isEmpty }

    /// False when full.
    mutating func addWaiting(_ request: Request, _ buffer: ByteBuffer) -> Bool {
        guard waiting.count < waitingMaximum, waiting.isEmpty || waitingBytes + request.bytes <= bytesMaximum else { return false }
        waiting.append((request, buffer))
        waitingBytes += request.bytes
        return true
    }

    /// False when full.
    mutating func addInFlight(_ request: Request) -> Bool {
        guard inFlight.count < inFlightMaximum, inFlight.isEmpty || inFlightBytes + request.bytes <= bytesMaximum else { return false }
        inFlight.append(request)
        inFlightBytes += request.bytes
        return true
    }

    /// What waits is in flight from here on; the caller writes it, in this order.
    mutating func sendWaiting() -> [ByteBuffer] {
        let buffers = waiting.map(\.buffer)
        inFlight.append(contentsOf: waiting.map(\.request))
        inFlightBytes += waitingBytes
        waiting = []
        waitingBytes = 0
        return buffers
    }

    mutating func received(_ reply: RESPValue) -> Received {
        guard let count = inFlight.first?.count else { return .unasked }
        if count == 1 { return .complete(removeFirst(), [reply]) }
        if replies.isEmpty { replies.reserveCapacity(count) }
        replies.append(reply)
        guard replies.count == count else { return .more }
        let complete = replies
        replies = []
        return .complete(removeFirst(), complete)
    }

    private mutating func removeFirst() -> Request {
        let request = inFlight.removeFirst()
        inFlightBytes -= request.bytes
        return request
    }

    /// The connection is gone, and half an answer with it.
    mutating func takeInFlight() -> Deque<Request> {
        defer {
            inFlight = []
            inFlightBytes = 0
            replies = []
        }
        return inFlight
    }

    mutating func takeAll() -> [Request] {
        let all = Array(takeInFlight()) + waiting.map(\.request)
        waiting = []
        waitingBytes = 0
        return all
    }

    mutating func takeExpiredWaiting(_ now: NIODeadline) -> [Request] {
        let expired = waiting.filter { $0.request.deadline <= now }.map(\.request)
        guard !expired.isEmpty else { return [] }
        waiting.removeAll { $0.request.deadline <= now }
        waitingBytes -= expired.reduce(0) { $0 + $1.bytes }
        return expired
    }

    func hasExpiredInFlight(_ now: NIODeadline) -> Bool {
        inFlight.contains { $0.deadline <= now }
    }

    /// Looks at all: asked once a ring of the alarm, so every few seconds.
    var earliestDeadline: NIODeadline? {
        let sent = inFlight.lazy.map(\.deadline).min()
        let kept = waiting.lazy.map(\.request.deadline).min()
        guard let sent, let kept else { return sent ?? kept }
        return min(sent, kept)
    }
}
