import Contract
import HTTPTypes
import Hummingbird
import JobQueue

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
        let after = try Self.lastEventID(request.headers[.lastEventID])
        let (id, record) = try await context.ownRecord(requestContext)
        let stream = try await JobEventStream.open(id, after: after, record, context: context, requestContext)
        // No events are left. Status 204 stops an EventSource from reconnecting (HTML Living Standard, 9.2.3).
        return stream.isEmpty ? Response(status: .noContent) : stream.response(Encoder())
    }

    /// Parses `Last-Event-ID`. A missing or empty header (a new EventSource may send one) gives nil.
    /// - Throws: 400 for an invalid id.
    static func lastEventID(_ header: String?) throws(HTTPErrorResponse) -> EventID? {
        guard let header, !header.isEmpty else { return nil }
        guard let id = EventID(header) else { throw HTTPErrorResponse.invalidEventID }
        return id
    }

    /// Encodes events as they are in the log.
    private struct Encoder: EventEncoder {
        func begin() -> [UInt8] { [] }

        func encode(_ events: [LoggedEvent]) -> [UInt8] {
            var out: [UInt8] = []
            for event in events { ServerSentEvents.append(event, to: &out) }
            return out
        }
    }
}
