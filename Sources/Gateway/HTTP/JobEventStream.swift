import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOCore

/// Encodes a job's events for one client. A state machine without I/O.
protocol EventEncoder: Sendable {
    /// What the client receives before the first event.
    mutating func begin() -> [UInt8]

    mutating func encode(_ events: [LoggedEvent]) -> [UInt8]
}

/// Writes a job's events to a client: those in its log at the client's reading speed, then live ones, up to the terminal event.
struct JobEventStream: Sendable {
    /// A client's position in the event log.
    private struct Place {
        /// The last event written; nil before the first one.
        var after: EventID?
        /// The last log entry read. An entry may hold no event.
        var cursor: String?
    }

    private let id: JobID
    private let owner: String
    private let context: GatewayContext
    private let channel: any Channel
    private let share: HTTPShare
    private let after: EventID?
    /// The first page of the log.
    private let first: LogPage
    private let hasEnded: Bool

    /// Whether the job has ended and no event follows `after`.
    var isEmpty: Bool { hasEnded && first.end == nil }

    /// Reads the first page of the log and counts the stream in the tenant's quota.
    ///
    /// Not inlined: swiftc 6.3.1 crashes when it optimizes a caller that contains this (coroutine splitting).
    /// - Parameter record: the job's record; nil when it is gone.
    @inline(never)
    static func open(
        _ id: JobID, after: EventID?, _ record: JobRecord?, context: GatewayContext, _ requestContext: GatewayRequestContext
    ) async throws(HTTPErrorResponse) -> JobEventStream {
        let owner = try requestContext.requireTenant().name
        let share = try context.shares.stream(of: owner)
        let first = try await onQueue { () throws(QueueError) in
            try await context.queue.logPage(id, after: after?.description, size: JobEventRoute.pageSize, inTurnOf: owner)
        }
        var after = after
        // An id beyond the log would suppress all later events, the terminal one included.
        if let given = after, first.end == nil {
            let last = try await onQueue { () throws(QueueError) in try await context.queue.lastEvents([id]).first ?? nil }
            after = last.map { min($0, given) }
        }
        return JobEventStream(
            id: id, owner: owner, context: context, channel: requestContext.channel, share: share, after: after, first: first,
            hasEnded: record?.state?.isTerminal ?? true)
    }

    /// The response that streams the events.
    /// - Parameter ifEmpty: the failure that is reported when the job's events are lost; nil to report none.
    func response(_ encoder: some EventEncoder, ifEmpty: Failure? = nil, headers: HTTPFields = [:]) -> Response {
        var fields = ServerSentEvents.headers
        for header in headers { fields[header.name] = header.value }
        let body = ResponseBody { [self] writer in
            defer { share.release() }
            var encoder = encoder
            let opening = encoder.begin()
            if !opening.isEmpty { try await writer.write(ByteBuffer(bytes: opening)) }
            if isEmpty, let ifEmpty {
                let event = LoggedEvent(id: EventID(attempt: 1, sequence: 0), event: .failed(ifEmpty, .none))
                try await writer.write(ByteBuffer(bytes: encoder.encode([event])))
            } else {
                try await write(&encoder, to: &writer)
            }
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: fields, body: body)
    }

    /// Writes the events until the job has ended.
    @concurrent
    private func write(_ encoder: inout some EventEncoder, to writer: inout any ResponseBodyWriter) async throws {
        let inbox = EventInbox(maximumSize: JobEventRoute.pageSize, overflow: .fallBehind, tenant: context.unsent.tenant(owner)) {
            GatewayMetrics.cut(channel)
        }
        ClientPresence.watch(channel) { inbox.clientGone() }
        let period = ServerSentEvents.heartbeat
        let heartbeats = channel.eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in inbox.beat() }
        defer {
            heartbeats.cancel()
            ClientPresence.unwatch(channel)
        }
        var place = Place(after: after, cursor: after?.description)
        var page: LogPage? = first
        repeat {
            if try await replay(from: &place, first: page.take(), inbox: inbox, &encoder, writer: &writer) { break }
        } while try await follow(from: &place, inbox: inbox, &encoder, writer: &writer)
    }

    /// Writes the events in the log page by page, at the client's reading speed.
    /// - Returns: whether the stream is complete: the terminal event was written, or the job has ended and its log holds no more events.
    @concurrent
    private func replay(
        from place: inout Place, first: LogPage?, inbox: EventInbox, _ encoder: inout some EventEncoder,
        writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        var next = first
        while true {
            let page: LogPage
            if let given = next.take() {
                page = given
            } else {
                page = try await context.queue.logPage(id, after: place.cursor, size: JobEventRoute.pageSize, inTurnOf: owner)
            }
            // Live events are followed only from the end of the log, because more may be logged while a page is written to a slow client.
            guard let end = page.end else { return hasEnded }
            place.cursor = end
            let isOver = page.events.contains(where: \.event.isTerminal) || hasEnded && page.isLast
            if let last = page.events.last?.id { place.after = last }
            try await Self.write(page.events, &encoder, writer: &writer)
            inbox.readerMoved()
            if isOver { return true }
        }
    }

    /// Writes live events.
    /// - Returns: true when the client read too slowly and must continue from the log; false when the terminal event was written.
    /// - Throws: when the client disconnected or was disconnected.
    @concurrent
    private func follow(
        from place: inout Place, inbox: EventInbox, _ encoder: inout some EventEncoder, writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        inbox.catchUp()
        let following = try await context.feed.follow(id, after: place.after) { inbox.deliver($0) }
        defer { context.feed.stop(following) }
        while true {
            switch await inbox.next() {
            case .heartbeat: try await writer.write(ServerSentEvents.comment)
            case .nudge: break
            case .events(let events):
                let last = events.last
                try await Self.write(events, &encoder, writer: &writer)
                if let last {
                    place = Place(after: last.id, cursor: last.id.description)
                    if last.event.isTerminal { return false }
                }
            case .behind: return true
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow:
                context.logger.notice("event stream closed: client reads too slowly", metadata: ["job": "\(id)"])
                throw ChannelError.outputClosed
            }
        }
    }

    /// Encodes and writes events. Consumes the array, so that it is released before the write waits for the client.
    @concurrent
    private static func write(
        _ events: consuming [LoggedEvent], _ encoder: inout some EventEncoder, writer: inout any ResponseBodyWriter
    ) async throws {
        guard !events.isEmpty else { return }
        let out = encoder.encode(events)
        events = []
        // The client may have all of these events already.
        if !out.isEmpty { try await writer.write(ByteBuffer(bytes: out)) }
    }
}
