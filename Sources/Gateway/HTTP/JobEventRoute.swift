import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOCore
import RedisClient

/// `GET /v1/jobs/<id>/events`: a job's events, from the beginning or from after `Last-Event-ID`, until the terminal one.
struct JobEventRoute: Sendable {
    /// Bytes of events that are held for one stream: of a page of the log, and of what arrives while the client does not read. So the
    /// streams that a tenant may have open hold some 150 MB at most, whatever their jobs' logs hold.
    static let pageSize = 32 << 10

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.get("jobs/:id/events", use: stream)
    }

    @Sendable
    private func stream(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let after = try Self.lastEventID(request.headers[.lastEventID])
        let (id, record) = try await context.ownRecord(requestContext)
        let owner = try requestContext.requireTenant().name
        let share = try context.shares.stream(of: owner)
        let first = try await askingRedis { () throws(RedisError) in
            try await context.queue.logPage(id, after: after?.description, size: Self.pageSize)
        }
        let hasEnded = record.state?.isTerminal ?? false
        // Nothing is left to come: 204 tells an EventSource not to come back (HTML Living Standard, 9.2.3).
        if hasEnded, first.end == nil { return Response(status: .noContent) }
        let channel = requestContext.channel
        let body = ResponseBody { [self, share] writer in
            defer { share.release() }
            let inbox = EventInbox(maximumSize: Self.pageSize, overflow: .fallBehind, tenant: context.unsent.tenant(owner)) {
                GatewayMetrics.cut(channel)
            }
            ClientPresence.watch(channel) { inbox.clientGone() }
            let period = ServerSentEvents.heartbeat
            let beats = channel.eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in inbox.beat() }
            defer {
                beats.cancel()
                ClientPresence.unwatch(channel)
            }
            var place = Place(after: after, cursor: after?.description)
            var page: LogPage? = first
            repeat {
                let isOver = try await replay(id, from: &place, first: page.take(), hasEnded: hasEnded, inbox: inbox, writer: &writer)
                if isOver { break }
            } while try await follow(id, from: &place, inbox: inbox, writer: &writer)
            try await writer.finish(nil)
        }
        return Response(status: .ok, headers: ServerSentEvents.headers, body: body)
    }

    /// Nil for none; a fresh EventSource may send an empty one.
    static func lastEventID(_ header: String?) throws(HTTPFailure) -> EventID? {
        guard let header, !header.isEmpty else { return nil }
        guard let id = EventID(header) else { throw HTTPFailure.invalidEventID }
        return id
    }

    /// How far a client has come.
    private struct Place {
        /// The last event written; nil: none yet.
        var after: EventID?
        /// The last entry read from the log, which need not be an event.
        var cursor: String?
    }

    /// Writes what the log holds, page by page, at the pace of the reader.
    /// - Returns: whether that was all: the terminal event was written, or nobody will write the rest.
    @concurrent
    private func replay(
        _ id: JobID, from place: inout Place, first: LogPage?, hasEnded: Bool, inbox: EventInbox, writer: inout any ResponseBodyWriter
    ) async throws -> Bool {
        var next = first
        while true {
            let page: LogPage
            if let given = next.take() {
                page = given
            } else {
                page = try await context.queue.logPage(id, after: place.cursor, size: Self.pageSize)
            }
            // Followed live only from the end of the log: while a page was written to a slow reader, more was logged.
            guard let end = page.end else { return hasEnded }
            place.cursor = end
            let isOver = page.events.contains(where: \.event.isTerminal) || hasEnded && page.isLast
            if let last = page.events.last?.id { place.after = last }
            try await Self.write(page.events, writer: &writer)
            inbox.readerMoved()
            if isOver { return true }
        }
    }

    /// Writes what arrives.
    /// - Returns: whether the log has to be read on, as the client read too slowly; else the terminal event was written.
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
            case .events(let events):
                try await Self.write(events, writer: &writer)
                if let last = events.last {
                    place = Place(after: last.id, cursor: last.id.description)
                    if last.event.isTerminal { return false }
                }
            case .behind: return true
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow:
                context.logger.notice("event stream cut: too slow a reader", metadata: ["job": "\(id)"])
                throw ChannelError.outputClosed
            }
        }
    }

    /// As server-sent events. Takes the events over, so that they are not held while the client reads.
    @concurrent
    private static func write(_ events: consuming [LoggedEvent], writer: inout any ResponseBodyWriter) async throws {
        guard !events.isEmpty else { return }
        var out: [UInt8] = []
        for event in events { ServerSentEvents.append(event, to: &out) }
        events = []
        try await writer.write(ByteBuffer(bytes: out))
    }
}
