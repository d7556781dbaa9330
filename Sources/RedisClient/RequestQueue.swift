import DequeModule
import NIOCore

/// The commands of one client in their order: those that wait for a connection and those that wait for their replies. No I/O.
struct RequestQueue {
    struct Request {
        /// Replies due.
        let count: Int
        let deadline: NIODeadline
        /// When its caller asked for it.
        var begun = NIODeadline.uptimeNanoseconds(0)
        let completion: CommandCore.Completion
    }

    enum Received {
        case more
        case complete(Request, [RESPValue])
        /// Nothing was in flight.
        case unasked
    }

    private let waitingMaximum: Int
    private let inFlightMaximum: Int
    private var waiting: Deque<(request: Request, buffer: ByteBuffer)> = []
    private var inFlight: Deque<Request> = []
    /// Of the oldest in flight: Redis answers in order.
    private var replies: [RESPValue] = []

    init(waitingMaximum: Int, inFlightMaximum: Int) {
        self.waitingMaximum = waitingMaximum
        self.inFlightMaximum = inFlightMaximum
    }

    var isEmptyInFlight: Bool { inFlight.isEmpty }

    /// False when full.
    mutating func addWaiting(_ request: Request, _ buffer: ByteBuffer) -> Bool {
        guard waiting.count < waitingMaximum else { return false }
        waiting.append((request, buffer))
        return true
    }

    /// False when full.
    mutating func addInFlight(_ request: Request) -> Bool {
        guard inFlight.count < inFlightMaximum else { return false }
        inFlight.append(request)
        return true
    }

    /// What waits is in flight from here on; the caller writes it, in this order.
    mutating func sendWaiting() -> [ByteBuffer] {
        let buffers = waiting.map(\.buffer)
        inFlight.append(contentsOf: waiting.map(\.request))
        waiting = []
        return buffers
    }

    mutating func received(_ reply: RESPValue) -> Received {
        guard let count = inFlight.first?.count else { return .unasked }
        if count == 1 { return .complete(inFlight.removeFirst(), [reply]) }
        if replies.isEmpty { replies.reserveCapacity(count) }
        replies.append(reply)
        guard replies.count == count else { return .more }
        let complete = replies
        replies = []
        return .complete(inFlight.removeFirst(), complete)
    }

    /// The connection is gone, and half an answer with it.
    mutating func takeInFlight() -> Deque<Request> {
        defer {
            inFlight = []
            replies = []
        }
        return inFlight
    }

    mutating func takeAll() -> [Request] {
        let all = Array(takeInFlight()) + waiting.map(\.request)
        waiting = []
        return all
    }

    mutating func takeExpiredWaiting(_ now: NIODeadline) -> [Request] {
        let expired = waiting.filter { $0.request.deadline <= now }.map(\.request)
        if !expired.isEmpty { waiting.removeAll { $0.request.deadline <= now } }
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
