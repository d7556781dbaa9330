import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOCore

/// `GET /v1/jobs/<id>/events`: streams a job's events from the beginning, or after `Last-Event-ID`, up to the terminal event.
struct JobEventRoute: Sendable {
    /// Limits, in bytes, both a page of the event log and the live events that are buffered while the client does not read. All streams
    /// that a tenant may open therefore use at most about 150 MB, regardless of the size of the logs.
    static let pageSize = 32 << 10

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.get("jobs/:id/events", use: stream)
    }

    @Sendable
    private func stream(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        var after = try Self.lastEventID(request.headers[.lastEventID])
        let (id, record) = try await context.ownRecord(requestContext)
        let owner = try requestContext.requireTenant().name
        let share = try context.shares.stream(of: owner)
        let first = try await onQueue { () throws(QueueError) in
            try await context.queue.logPage(id, after: after?.description, size: Self.pageSize, inTurnOf: owner)
        }
        let hasEnded = record.state?.isTerminal ?? false
        // No events are left. Status 204 stops an EventSource from reconnecting (HTML Living Standard, 9.2.3).
        if hasEnded, first.end == nil { return Response(status: .noContent) }
        // An id beyond the log would suppress all later events, the terminal one included.
        if let given = after, first.end == nil {
            let last = try await onQueue { () throws(QueueError) in try await context.queue.lastEvents([id]).first ?? nil }
            after = last.map { min($0, given) }
        }
        let channel = requestContext.channel
        let body = ResponseBody { [self, share, after] writer in
            defer { share.release() }
            let inbox = EventInbox(maximumSize: Self.pageSize, overflow: .fallBehind, tenant: context.unsent.tenant(owner)) {
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
                let isOver = try await replay(
                    id, of: owner, from: &place, first: page.take(), hasEnded: hasEnded, inbox: inbox, writer: &writer)
                if isOver { break }
            } while try await follow(id, from: &place, inbox: inbox, writer: &writer)
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: ServerSentEvents.headers, body: body)
    }

    /// Parses `Last-Event-ID`. A missing or empty header (a new EventSource may send one) gives nil.
    /// - Throws: 400 for an invalid id.
    static func lastEventID(_ header: String?) throws(HTTPErrorResponse) -> EventID? {
        guard let header, !header.isEmpty else { return nil }
        guard let id = EventID(header) else { throw HTTPErrorResponse.invalidEventID }
        return id
    }

    /// A client's position in the event log.
    private struct Place {
        /// The last event written; nil before the first one.
        var after: EventID?
        /// The last log entry read. An entry may hold no event.
        var cursor: String?
    }

    /// Writes the events in the log page by page, at the client's reading speed.
    /// - Returns: whether the stream is complete: the terminal event was written, or the job has ended and its log holds no more events.
    @concurrent
    private func replay(
        _ id: JobID, of owner: String, from place: inout Place, first: LogPage?, hasEnded: Bool, inbox: EventInbox,
        writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        var next = first
        while true {
            let page: LogPage
            if let given = next.take() {
                page = given
            } else {
                page = try await context.queue.logPage(id, after: place.cursor, size: Self.pageSize, inTurnOf: owner)
            }
            // Live events are followed only from the end of the log, because more may be logged while a page is written to a slow client.
            guard let end = page.end else { return hasEnded }
            place.cursor = end
            let isOver = page.events.contains(where: \.event.isTerminal) || hasEnded && page.isLast
            if let last = page.events.last?.id { place.after = last }
            try await Self.write(page.events, writer: &writer)
            inbox.readerMoved()
            if isOver { return true }
        }
    }

    /// Writes live events.
    /// - Returns: true when the client read too slowly and must continue from the log; false when the terminal event was written.
    /// - Throws: when the client disconnected or was disconnected.
    @concurrent
    private func follow(
        _ id: JobID, from place: inout Place, inbox: EventInbox, writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        inbox.catchUp()
        let following = try await context.feed.follow(id, after: place.after) { inbox.deliver($0) }
        defer { context.feed.stop(following) }
        while true {
            switch await inbox.next() {
            case .heartbeat: try await writer.write(ServerSentEvents.comment)
            case .nudge: break
            case .events(let events):
                try await Self.write(events, writer: &writer)
                if let last = events.last {
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

    /// Writes events as server-sent events. Consumes the array, so that it is released before the write waits for the client.
    @concurrent
    private static func write(_ events: consuming [LoggedEvent], writer: inout any ResponseBodyWriter) async throws {
        guard !events.isEmpty else { return }
        var out: [UInt8] = []
        for event in events { ServerSentEvents.append(event, to: &out) }
        events = []
        try await writer.write(ByteBuffer(bytes: out))
    }
}
