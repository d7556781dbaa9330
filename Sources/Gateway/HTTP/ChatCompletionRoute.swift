import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import NIOCore

/// `POST /v1/chat/completions`: what an OpenAI SDK expects, by way of a job.
struct ChatCompletionRoute: Sendable {
    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("chat/completions", use: complete)
    }

    @Sendable
    private func complete(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        guard !context.readiness.isDraining else { throw HTTPFailure.draining }
        let (run, chat) = try await submit(request, requestContext, owner: owner)
        do throws(HTTPFailure) {
            return chat.streams ? try await stream(run, chat) : try await collect(run, chat)
        } catch {
            throw error.of(run.id)
        }
    }

    /// When it returns, the request counts as one of the tenant's running ones, and neither its body nor its JSON is held any more.
    private func submit(
        _ request: Request, _ requestContext: GatewayRequestContext, owner: String
    ) async throws(HTTPFailure) -> (CompletionRun, ChatCompletionRequest.Options) {
        let body = try await request.collect(upTo: context.settings.messageMaximum, requestContext.share)
        let chat = try ChatCompletionRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum)
        let partition = Int.random(in: 0..<context.queue.keys.partitions)
        let id = JobID(partition: partition, milliseconds: RequestClock.milliseconds)
        var job = Job(id: id, priority: .interactive, request: chat.body, owner: owner)
        job.traceparent = request.traceparent
        let run = CompletionRun(id: id, owner: owner, context: context, channel: requestContext.channel)
        do throws(HTTPFailure) { try await run.start(job) } catch { throw error.of(id) }
        requestContext.share?.release()
        return (run, chat.options)
    }

    private func collect(_ run: CompletionRun, _ chat: ChatCompletionRequest.Options) async throws(HTTPFailure) -> Response {
        var completion = ChatCompletion(model: chat.model ?? "")
        while true {
            for event in try await events(run) {
                let isLast: Bool
                do { isLast = try completion.take(event.event) } catch {
                    run.finish()
                    throw error
                }
                guard isLast else { continue }
                run.finish()
                let body = ByteBuffer(bytes: completion.body(id: run.id, created: RequestClock.seconds))
                return Response(
                    status: .ok, headers: [.contentType: "application/json", .job: run.id.rawValue], body: run.responseBody(body))
            }
        }
    }

    /// Waits for the first output, so that what fails before it is an HTTP status.
    private func stream(_ run: CompletionRun, _ chat: ChatCompletionRequest.Options) async throws(HTTPFailure) -> Response {
        var early: [LoggedEvent] = []
        repeat {
            early += try await events(run)
            if let failure = early.firstFailure {
                run.finish()
                throw HTTPFailure(failure)
            }
        } while !early.contains { $0.event.isOutput || $0.event.isTerminal }
        let completion = ChatCompletionStream(
            id: run.id, created: RequestClock.seconds, model: chat.model ?? "", includesUsage: chat.includesUsage)
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

    @concurrent
    private static func relay(
        _ run: CompletionRun, _ completion: ChatCompletionStream, early: [LoggedEvent], writer: inout any ResponseBodyWriter
    ) async throws {
        var completion = completion
        var delivery = EventInbox.Delivery.events(early)
        while true {
            switch delivery {
            case .heartbeat: try await writer.write(ServerSentEvents.comment)
            case .clientGone: throw ChannelError.inputClosed
            case .tooSlow, .behind: throw ChannelError.outputClosed
            case .events(let events):
                var out: [UInt8] = []
                var step = ChatCompletionStream.Step.goOn
                for event in events where step == .goOn { step = completion.take(event.event, out: &out) }
                // Before the write: a client that leaves with the last chunk has what it wanted.
                if step == .end { run.finish() }
                if step == .giveUp { run.abandon() }
                if !out.isEmpty { try await writer.write(ByteBuffer(bytes: out)) }
                if step != .goOn { return }
            }
            delivery = await run.inbox.next()
        }
    }

    /// The next events of a job of which nothing was written yet.
    private func events(_ run: CompletionRun) async throws(HTTPFailure) -> [LoggedEvent] {
        while true {
            switch await run.inbox.next() {
            case .events(let events): return events
            case .heartbeat: continue
            case .clientGone, .tooSlow, .behind:
                run.abandon()
                // Nobody reads it; the log of a proxy in front may show it.
                throw HTTPFailure(.requestTimeout, code: "client_gone", "the client closed the connection")
            }
        }
    }
}

extension GenerationEvent {
    fileprivate var isOutput: Bool {
        switch self {
        case .text, .reasoning, .toolCall: true
        default: false
        }
    }
}

extension [LoggedEvent] {
    /// The failure that these events end with, unless output came before it.
    fileprivate var firstFailure: Failure? {
        for event in self {
            if event.event.isOutput { return nil }
            if case .failed(let failure, _) = event.event { return failure }
        }
        return nil
    }
}

extension HTTPFailure {
    /// The failure with the job's id in its headers.
    fileprivate func of(_ id: JobID) -> HTTPFailure {
        var failure = self
        failure.headers[.job] = id.rawValue
        return failure
    }
}
