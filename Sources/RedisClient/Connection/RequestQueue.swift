import DequeModule
import NIOCore

/// The commands of one client in order: those waiting for a connection and those waiting for replies. A state machine without I/O.
struct RequestQueue {
    /// The commands of one pipeline.
    struct Request {
        /// Number of expected replies.
        let count: Int
        /// Size on the wire.
        let bytes: Int
        let deadline: NIODeadline
        /// Time of the call.
        var begun = NIODeadline.uptimeNanoseconds(0)
        let completion: CommandCore.Completion
        /// The expected reply to an ECHO that verifies the order of replies; nil for other requests.
        var mark: String?
        /// The commands, to send them again when Redis did not execute them; nil for requests that are not repeated.
        var commands: [UInt8]?
        /// The last reply that said that nothing was executed; nil before the first one.
        var refusal: String?
        /// Number of such replies so far.
        var refusals = 0
    }

    /// The effect of a reply.
    enum Received {
        /// More replies of the same request follow.
        case more
        case complete(Request, [RESPValue])
        /// No request was in flight.
        case unasked
    }

    private let waitingMaximum: Int
    private let inFlightMaximum: Int
    /// Maximum bytes of the waiting requests, and separately of the requests in flight.
    private let bytesMaximum: Int
    private var waitingBytes = 0
    private var inFlightBytes = 0
    private var waiting: Deque<(request: Request, commands: [UInt8])> = []
    private var inFlight: Deque<Request> = []
    /// Replies received so far for the oldest request in flight; Redis replies in order.
    private var replies: [RESPValue] = []

    init(waitingMaximum: Int, inFlightMaximum: Int, bytesMaximum: Int) {
        self.bytesMaximum = bytesMaximum
        self.waitingMaximum = waitingMaximum
        self.inFlightMaximum = inFlightMaximum
    }

    var isEmptyInFlight: Bool { inFlight.isEmpty }
    var isEmpty: Bool { inFlight.isEmpty && waiting.isEmpty }

    /// Adds a request that waits for a connection. A request larger than the limit is accepted when it is alone.
    /// - Returns: false when the queue is full.
    mutating func addWaiting(_ request: Request, _ commands: [UInt8]) -> Bool {
        guard waiting.count < waitingMaximum, waiting.isEmpty || waitingBytes + request.bytes <= bytesMaximum else { return false }
        waiting.append((request, commands))
        waitingBytes += request.bytes
        return true
    }

    /// Adds a request again that Redis did not execute: before the requests that were not sent yet, behind other repeated ones. The limits
    /// do not apply, because they applied to its first addition.
    mutating func addAgain(_ request: Request, _ commands: [UInt8]) {
        let index = waiting.firstIndex { $0.request.refusals == 0 } ?? waiting.endIndex
        waiting.insert((request, commands), at: index)
        waitingBytes += request.bytes
    }

    /// Adds a request that the caller writes to the connection.
    /// - Returns: false when too many requests are in flight.
    mutating func addInFlight(_ request: Request) -> Bool {
        guard inFlight.count < inFlightMaximum, inFlight.isEmpty || inFlightBytes + request.bytes <= bytesMaximum else { return false }
        inFlight.append(request)
        inFlightBytes += request.bytes
        return true
    }

    /// Moves all waiting requests into flight. The caller writes the returned commands in order.
    mutating func sendWaiting() -> [[UInt8]] {
        let commands = waiting.map(\.commands)
        inFlight.append(contentsOf: waiting.map(\.request))
        inFlightBytes += waitingBytes
        waiting = []
        waitingBytes = 0
        return commands
    }

    /// Assigns a reply to the oldest request in flight.
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

    /// Removes all requests in flight after the connection was lost; partial replies are dropped.
    mutating func takeInFlight() -> Deque<Request> {
        defer {
            inFlight = []
            inFlightBytes = 0
            replies = []
        }
        return inFlight
    }

    /// Removes all requests.
    mutating func takeAll() -> [Request] { Array(takeInFlight()) + takeWaiting() }

    /// Removes the waiting requests.
    mutating func takeWaiting() -> [Request] {
        defer {
            waiting = []
            waitingBytes = 0
        }
        return waiting.map(\.request)
    }

    /// Removes the waiting requests whose deadline has passed.
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

    /// The earliest deadline of all requests. Linear time; called once per alarm, so every few seconds.
    var earliestDeadline: NIODeadline? {
        let sent = inFlight.lazy.map(\.deadline).min()
        let kept = waiting.lazy.map(\.request.deadline).min()
        guard let sent, let kept else { return sent ?? kept }
        return min(sent, kept)
    }
}
