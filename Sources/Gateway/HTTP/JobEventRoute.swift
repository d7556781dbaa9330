import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOCore
import RedisClient

/// `GET /v1/jobs/<id>/events`: a job's events, from the beginning or from after `Last-Event-ID`, until the terminal one.
struct JobEventRoute: Sendable {
    /// A log that still grows by more than this many events between two readings is read once more before it is followed live.
    private static let liveThreshold = 256
    /// Events turned into one write.
    private static let writeBatch = 256

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.get("jobs/:id/events", use: stream)
    }

    @Sendable
    private func stream(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (id, record) = try await context.ownRecord(requestContext)
        let after = try Self.lastEventID(request.headers[.lastEventID])
        let events = try await askingRedis { () throws(RedisError) in try await context.queue.log(id, after: after) }
        let hasEnded = record.state?.isTerminal ?? false
        // Nothing is left to come: 204 tells an EventSource not to come back (HTML Living Standard, 9.2.3).
        if hasEnded, events.isEmpty { return Response(status: .noContent) }
        let channel = requestContext.channel
        let body = ResponseBody { [self] writer in
            let inbox = EventInbox(maximumSize: context.settings.outgoingMaximum) { GatewayMetrics.cut(channel) }
            ClientPresence.watch(channel) { inbox.clientGone() }
            let period = ServerSentEvents.heartbeat
            let beats = channel.eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in inbox.beat() }
            defer {
                beats.cancel()
                ClientPresence.unwatch(channel)
            }
            let last = try await replay(id, events: events, after: after, hasEnded: hasEnded, inbox: inbox, writer: &writer)
            if let last { try await follow(id, after: last, inbox: inbox, writer: &writer) }
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

    private enum Position {
        case start
        case after(EventID)

        var id: EventID? { if case .after(let id) = self { id } else { nil } }
    }

    /// Writes what the log holds, at the pace of the reader.
    /// - Returns: where to go on; nil when the terminal event was written.
    @concurrent
    private func replay(
        _ id: JobID, events: [LoggedEvent], after: EventID?, hasEnded: Bool, inbox: EventInbox,
        writer: inout any ResponseBodyWriter
    ) async throws -> Position? {
        var events = events
        var last = after
        while true {
            for start in stride(from: 0, to: events.count, by: Self.writeBatch) {
                let batch = events[start..<min(start + Self.writeBatch, events.count)]
                try await Self.write(batch, writer: &writer)
                inbox.readerMoved()
                last = batch.last?.id
                if batch.contains(where: \.event.isTerminal) { return nil }
            }
            // Ended, and the log is cut or expired: nobody will write the rest.
            if hasEnded { return nil }
            if events.count < Self.liveThreshold { return last.map { .after($0) } ?? .start }
            events = try await context.queue.log(id, after: last)
        }
    }

    @concurrent
    private func follow(_ id: JobID, after: Position, inbox: EventInbox, writer: inout any ResponseBodyWriter) async throws {
        let following = try await context.feed.follow(id, after: after.id) { inbox.deliver($0) }
        defer { context.feed.stop(following) }
        while true {
            switch await inbox.next() {
            case .heartbeat: try await writer.write(ServerSentEvents.comment)
            case .events(let events):
                try await Self.write(events[...], writer: &writer)
                if events.last?.event.isTerminal ?? false { return }
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow:
                context.logger.notice("event stream cut: too slow a reader", metadata: ["job": "\(id)"])
                throw ChannelError.outputClosed
            }
        }
    }

    @concurrent
    private static func write(_ events: ArraySlice<LoggedEvent>, writer: inout any ResponseBodyWriter) async throws {
        guard !events.isEmpty else { return }
        var out: [UInt8] = []
        for event in events { ServerSentEvents.append(event, to: &out) }
        try await writer.write(ByteBuffer(bytes: out))
    }
}
