import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import NIOCore
import Support

/// `POST /v1/chat/completions`, compatible with OpenAI SDKs. Each request runs as a job.
struct ChatCompletionRoute: Sendable {
    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("chat/completions", use: complete)
    }

    @Sendable
    private func complete(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        guard !context.readiness.isDraining else { throw HTTPErrorResponse.draining }
        let (run, chat) = try await submit(request, requestContext, owner: owner)
        do throws(HTTPErrorResponse) {
            return chat.streams ? try await stream(run, chat) : try await collect(run, chat)
        } catch {
            throw error.of(run.id)
        }
    }

    /// Parses the request and submits its job. On return the request counts as running for its tenant, and its body and JSON are released.
    /// - Throws: status 400, 408, 413, 429 or 503; see `ChatCompletionRequest.init`, `Request.collect` and `CompletionRun.start`.
    private func submit(
        _ request: Request, _ requestContext: GatewayRequestContext, owner: String
    ) async throws(HTTPErrorResponse) -> (CompletionRun, ChatCompletionRequest.Options) {
        let body = try await request.collect(upTo: context.settings.bodyMaximum, requestContext.share)
        let chat = try await requestContext.parse(body) { (body) throws(HTTPErrorResponse) in
            try ChatCompletionRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum)
        }
        let partition = Int.random(in: 0..<context.queue.partitions)
        let id = JobID(partition: partition, milliseconds: UInt64(clamping: WallClock.milliseconds))
        var job = Job(id: id, priority: .interactive, request: chat.body, owner: owner)
        job.traceparent = request.traceparent
        let run = CompletionRun(id: id, owner: owner, context: context, channel: requestContext.channel)
        do throws(HTTPErrorResponse) { try await run.start(job) } catch { throw error.of(id) }
        requestContext.share?.release()
        return (run, chat.options)
    }

    /// Collects the whole completion and responds with it as one JSON object.
    private func collect(_ run: CompletionRun, _ chat: ChatCompletionRequest.Options) async throws(HTTPErrorResponse) -> Response {
        var completion = ChatCompletion(model: chat.model ?? "", interruptedReason: context.settings.interruptedFinishReason)
        while true {
            for event in try await events(run) {
                let isLast: Bool
                do { isLast = try completion.take(event.event) } catch {
                    run.finish()
                    throw error
                }
                guard isLast else { continue }
                run.finish()
                let body = ByteBuffer(bytes: completion.body(id: run.id, created: WallClock.seconds))
                return Response(
                    status: .ok, headers: [.contentType: "application/json", .job: run.id.rawValue], body: run.responseBody(body))
            }
        }
    }

    /// Streams the completion as server-sent events. The response head waits for the first output, but only a moment: a failure in this time
    /// is reported as an HTTP status, a later one as an error chunk.
    private func stream(_ run: CompletionRun, _ chat: ChatCompletionRequest.Options) async throws(HTTPErrorResponse) -> Response {
        var early: [LoggedEvent] = []
        let inbox = run.inbox
        let headDelay = run.eventLoop.scheduleTask(in: TimeAmount(context.settings.streamHeadDelay)) { inbox.nudge() }
        defer { headDelay.cancel() }
        repeat {
            guard let events = try await earlyEvents(run) else { break }
            early += events
            if let failure = early.firstFailure {
                run.finish()
                throw HTTPErrorResponse(failure)
            }
        } while !early.contains { $0.event.isOutput || $0.event.isTerminal }
        let completion = ChatCompletionStream(
            id: run.id, created: WallClock.seconds, model: chat.model ?? "", includesUsage: chat.includesUsage,
            interruptedReason: context.settings.interruptedFinishReason)
        var headers = ServerSentEvents.headers
        headers[.job] = run.id.rawValue
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { [early] writer in
                do {
                    try await Self.relay(run, completion, early: early, writer: &writer)
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
        _ run: CompletionRun, _ completion: ChatCompletionStream, early: [LoggedEvent], writer: inout any ResponseBodyWriter
    ) async throws {
        var completion = completion
        // Without early events nothing is written until the next ones.
        var delivery = EventInbox.Delivery.events(early)
        while true {
            switch delivery {
            case .heartbeat: try await writer.write(ServerSentEvents.comment)
            case .nudge: break
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow, .behind: throw ChannelError.outputClosed
            case .events(let events):
                var out: [UInt8] = []
                var step = ChatCompletionStream.Step.goOn
                for event in events where step == .goOn { step = completion.take(event.event, out: &out) }
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
                throw HTTPErrorResponse(.requestTimeout, code: "client_gone", "the client closed the connection")
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
    fileprivate func of(_ id: JobID) -> HTTPErrorResponse {
        var failure = self
        failure.headers[.job] = id.rawValue
        return failure
    }
}
