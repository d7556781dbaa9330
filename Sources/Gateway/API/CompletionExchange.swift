import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import NIOCore
import Support

/// What a stream's writer does after an event.
enum StreamStep: Equatable {
    /// Waits for more events.
    case goOn
    /// Ends the response; the stream is complete.
    case end
    /// Ends the response and interrupts the job. Generation restarted after the client received part of the earlier output, which the API
    /// cannot retract, so the stream ends with an error.
    case giveUp
}

/// Encodes a job's events as the server-sent events of an API. A state machine without I/O.
protocol AnswerEncoder: Sendable {
    /// Appends the encoded event to `out`. After `.end` or `.giveUp` no further event may be passed.
    mutating func take(_ event: GenerationEvent, out: inout [UInt8]) -> StreamStep

    /// Appends what the client receives before the first event, as soon as the response head is sent.
    mutating func begin(out: inout [UInt8])

    /// What is written when nothing else was for some seconds.
    var heartbeat: ByteBuffer { get }
}

extension AnswerEncoder {
    mutating func begin(out: inout [UInt8]) {}
    var heartbeat: ByteBuffer { ServerSentEvents.comment }
}

/// Collects a job's events into the response body of an API. A state machine without I/O.
protocol AnswerCollector: Sendable {
    /// Adds an event.
    /// - Returns: whether the event was the terminal one.
    /// - Throws: the HTTP form of the job's failure.
    mutating func take(_ event: GenerationEvent) throws(HTTPErrorResponse) -> Bool

    /// The response body.
    /// - Parameter created: seconds since 1970.
    func body(id: JobID, created: Int) -> [UInt8]
}

/// Serves a request of any API whose answer is one job's: submits the job, follows it, and interrupts it when the client disconnects.
struct CompletionExchange: Sendable {
    let context: GatewayContext

    /// A new job's id.
    /// - Parameter partition: nil for any partition.
    func newJobID(partition: Int? = nil) -> JobID {
        let partition = partition ?? context.queue.newPartition()
        return JobID(partition: partition, milliseconds: UInt64(clamping: WallClock.milliseconds))
    }

    /// Reads and parses the request's body.
    /// - Throws: status 400, 408, 413, 429 or 503; see `Request.collect`; and the errors of `parse`.
    func read<Value: Sendable>(
        _ request: Request, _ requestContext: GatewayRequestContext, _ parse: ([UInt8]) throws(HTTPErrorResponse) -> Value
    ) async throws(HTTPErrorResponse) -> Value {
        guard !context.readiness.isDraining else { throw HTTPErrorResponse.draining }
        let body = try await request.collect(upTo: context.settings.bodyMaximum, requestContext.share)
        return try await requestContext.parse(body, parse)
    }

    /// The idempotency key of a request, and the digest of its body once that is known.
    struct Idempotency: Sendable {
        let key: String
        /// Of the request's job.
        let partition: Int
        var digest = ""
    }

    /// The idempotency key of a request; nil: none.
    /// - Throws: 400 for a key of another form.
    func idempotency(
        _ request: Request, _ requestContext: GatewayRequestContext
    ) throws(HTTPErrorResponse) -> Idempotency? {
        let owner = try requestContext.requireTenant().name
        return try JobSubmission.idempotency(request, owner: owner, partitions: context.queue.partitions)
            .map { Idempotency(key: $0.key, partition: $0.partition) }
    }

    /// Submits the request's job, or follows the job of an earlier request with the same idempotency key and body. On return the request
    /// counts as running for its tenant, and its body is released.
    /// - Parameters:
    ///   - chat: the job's chat completions body.
    ///   - id: in the partition of the idempotency key.
    ///   - change: completes the job.
    /// - Returns: the run, whose id is that of the earlier job if there is one.
    /// - Throws: status 409, 429 or 503; see `CompletionRun.start`.
    func start(
        _ chat: JSONObject, id: JobID, _ idempotency: Idempotency?, _ request: Request, _ requestContext: GatewayRequestContext,
        change: (inout Job) -> Void = { _ in }
    ) async throws(HTTPErrorResponse) -> CompletionRun {
        let owner = try requestContext.requireTenant().name
        var job = Job(id: id, priority: .interactive, request: chat, owner: owner)
        job.traceparent = request.traceparent
        change(&job)
        let run = CompletionRun(id: id, owner: owner, context: context, channel: requestContext.channel)
        let earlier: JobID?
        do throws(HTTPErrorResponse) {
            earlier = try await run.start(job, idempotency: idempotency.map { ($0.key, $0.digest) })
        } catch { throw error.of(id) }
        requestContext.share?.release()
        guard let earlier else { return run }
        let repeated = CompletionRun(id: earlier, owner: owner, context: context, channel: requestContext.channel)
        do throws(HTTPErrorResponse) { try await repeated.attach() } catch { throw error.of(earlier) }
        return repeated
    }

    /// Collects the whole answer and responds with it as one JSON object.
    func collect(_ run: CompletionRun, _ collector: some AnswerCollector) async throws(HTTPErrorResponse) -> Response {
        var collector = collector
        while true {
            for event in try await events(run) {
                let isLast: Bool
                do throws(HTTPErrorResponse) { isLast = try collector.take(event.event) } catch {
                    run.finish()
                    throw error.of(run.id)
                }
                guard isLast else { continue }
                run.finish()
                let body = ByteBuffer(bytes: collector.body(id: run.id, created: WallClock.seconds))
                return Response(
                    status: .ok, headers: [.contentType: "application/json", .job: run.id.rawValue], body: run.responseBody(body))
            }
        }
    }

    /// Streams the answer as server-sent events. The response head waits for the first output, but only a moment: a failure in this time
    /// is reported as an HTTP status, a later one inside the stream.
    func stream(_ run: CompletionRun, _ encoder: some AnswerEncoder) async throws(HTTPErrorResponse) -> Response {
        var early: [LoggedEvent] = []
        let inbox = run.inbox
        let headDelay = run.eventLoop.scheduleTask(in: TimeAmount(context.settings.streamHeadDelay)) { inbox.nudge() }
        defer { headDelay.cancel() }
        repeat {
            guard let events = try await earlyEvents(run) else { break }
            early += events
            if let failure = early.firstFailure {
                run.finish()
                throw HTTPErrorResponse(failure).of(run.id)
            }
        } while !early.contains { $0.event.isOutput || $0.event.isTerminal }
        var headers = ServerSentEvents.headers
        headers[.job] = run.id.rawValue
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { [early] writer in
                do {
                    try await Self.relay(run, encoder, early: early, writer: &writer)
                } catch {
                    run.abandon()
                    throw error
                }
                try await writer.finish(nil)
            })
    }

    /// Writes the chunks of a stream until the job ends. Throws when the client disconnected or reads too slowly.
    @concurrent
    private static func relay(
        _ run: CompletionRun, _ encoder: some AnswerEncoder, early: [LoggedEvent], writer: inout any ResponseBodyWriter
    ) async throws {
        var encoder = encoder
        var opening: [UInt8] = []
        encoder.begin(out: &opening)
        // Without early events and an opening nothing is written until the next events.
        var delivery = EventInbox.Delivery.events(early)
        while true {
            switch delivery {
            case .heartbeat: try await writer.write(encoder.heartbeat)
            case .nudge: break
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow, .behind: throw ChannelError.outputClosed
            case .events(let events):
                var out = opening
                opening = []
                var step = StreamStep.goOn
                for event in events where step == .goOn { step = encoder.take(event.event, out: &out) }
                // Before the write: a client that disconnects while the last chunk is written must not interrupt a finished job.
                if step == .end { run.finish() }
                if step == .giveUp { run.abandon() }
                if !out.isEmpty { try await writer.write(ByteBuffer(bytes: out)) }
                if step != .goOn { return }
            }
            delivery = await run.inbox.next()
        }
    }

    /// The next events, before any output was written to the client.
    /// - Throws: 408 `client_gone` when the client disconnected; the job is interrupted then.
    private func events(_ run: CompletionRun) async throws(HTTPErrorResponse) -> [LoggedEvent] {
        while true {
            if let events = try await earlyEvents(run) { return events }
        }
    }

    /// The next events, before any output was written to the client; nil when `EventInbox.nudge` was called.
    /// - Throws: 408 `client_gone` when the client disconnected; the job is interrupted then.
    private func earlyEvents(_ run: CompletionRun) async throws(HTTPErrorResponse) -> [LoggedEvent]? {
        while true {
            switch await run.inbox.next() {
            case .events(let events): return events
            case .heartbeat: continue
            case .nudge: return nil
            case .clientGone, .tooSlow, .behind:
                run.abandon()
                // The client is gone, but a proxy in front may log the status.
                throw HTTPErrorResponse(.requestTimeout, code: "client_gone", "the client closed the connection").of(run.id)
            }
        }
    }
}

extension GenerationEvent {
    /// Whether the event carries generated output.
    fileprivate var isOutput: Bool {
        switch self {
        case .text, .reasoning, .toolCall: true
        default: false
        }
    }
}

extension [LoggedEvent] {
    /// The failure among these events, unless output came before it.
    fileprivate var firstFailure: Failure? {
        for event in self {
            if event.event.isOutput { return nil }
            if case .failed(let failure, _) = event.event { return failure }
        }
        return nil
    }
}

extension HTTPErrorResponse {
    /// A copy of the failure with the job's id in its headers.
    func of(_ id: JobID) -> HTTPErrorResponse {
        var failure = self
        failure.headers[.job] = id.rawValue
        return failure
    }
}
