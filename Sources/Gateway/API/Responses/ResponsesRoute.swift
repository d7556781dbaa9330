import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import Logging
import NIOCore
import Support

/// `/v1/responses`, compatible with OpenAI SDKs. Each response is a job; the fields of its request are stored beside the job, so that any gateway
/// can show, resume and cancel it.
struct ResponsesRoute: Sendable {
    /// How long a cancellation waits for the job to end before it is answered.
    private static let cancelPatience = TimeAmount.seconds(5)
    /// Maximum number of responses that a conversation continues.
    private static let chainMaximum = 1_000

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("responses", use: create)
        group.get("responses/:id", use: show)
        group.delete("responses/:id", use: delete)
        group.post("responses/:id/cancel", use: cancel)
        group.get("responses/:id/input_items", use: inputItems)
    }

    private var store: ResponseStore {
        ResponseStore(queue: context.queue, ttl: context.settings.responseTTL, maximumBytes: context.settings.responseBytesPerTenant)
    }

    // MARK: POST /v1/responses

    @Sendable
    private func create(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        let exchange = CompletionExchange(context: context)
        var idempotency = try exchange.idempotency(request, requestContext)
        let id = exchange.newJobID(partition: idempotency?.partition)
        let parsed = try await exchange.read(request, requestContext) { (body) throws(HTTPErrorResponse) in
            idempotency?.digest = JobSubmission.digest(body)
            return try ResponsesRequest(
                parsing: body, maximumDepth: context.settings.jsonDepthMaximum, id: id, defaultModel: context.settings.defaultModel)
        }
        var object = ResponseObject(
            id: id, created: WallClock.seconds, isBackground: parsed.isBackground, summarizes: parsed.summarizes, echo: parsed.echo)
        do throws(HTTPErrorResponse) {
            let chat = try await conversation(parsed, owner: owner, requestContext.share).chatBody
            if parsed.isStored { try await save(object, parsed.items, owner: owner) }
            guard parsed.isBackground else {
                let run: CompletionRun
                do throws(HTTPErrorResponse) {
                    run = try await exchange.start(chat, id: id, idempotency, request, requestContext)
                } catch {
                    if parsed.isStored { await forget(id, after: error, owner: owner) }
                    throw error
                }
                if run.id != id {
                    do throws(HTTPErrorResponse) {
                        if parsed.isStored { _ = try await onQueue { () throws(QueueError) in try await store.delete(id, owner: owner) } }
                        object = try await load(run.id, owner: owner)?.1 ?? object.with(id: run.id)
                    } catch {
                        run.abandon()
                        throw error
                    }
                }
                return parsed.streams
                    ? try await exchange.stream(run, ResponsesStream(object))
                    : try await exchange.collect(run, ResponsesCollector(object))
            }
            var options = SubmitOptions()
            options.idempotency = idempotency.map { ($0.key, $0.digest) }
            var job = Job(id: id, priority: .standard, request: chat, owner: owner)
            job.traceparent = request.traceparent
            let submitted: JobID
            do throws(HTTPErrorResponse) { submitted = try await context.submitDetached(job, options: options) } catch {
                await forget(id, after: error, owner: owner)
                throw error
            }
            requestContext.share?.release()
            if submitted != id { _ = try await onQueue { () throws(QueueError) in try await store.delete(id, owner: owner) } }
            return try await answer(submitted, owner: owner, streams: parsed.streams, after: nil, requestContext)
        } catch {
            throw error.renaming(ResponsesRequest.fieldNames)
        }
    }

    /// Deletes a stored response whose job was refused. One whose submission is in doubt stays.
    private func forget(_ id: JobID, after error: HTTPErrorResponse, owner: String) async {
        guard error.isRefusal else { return }
        do { _ = try await store.delete(id, owner: owner) } catch {
            context.logger.debug("a refused response could not be deleted; it expires", metadata: ["job": "\(id)", "error": "\(error)"])
        }
    }

    private func save(_ object: ResponseObject, _ items: [JSON], owner: String) async throws(HTTPErrorResponse) {
        let stored = StoredResponse(
            owner: owner, created: object.created, isBackground: object.isBackground, summarizes: object.summarizes, echo: object.echo,
            items: items)
        guard try await onQueue({ () throws(QueueError) in try await store.save(object.id, stored) }) else {
            throw HTTPErrorResponse(
                .tooManyRequests, code: "rate_limited",
                "your stored responses have reached their limit; delete some, or set \"store\" to false")
        }
    }

    /// The conversation with the items and answers of the responses that it continues.
    /// - Parameter share: counts the bytes of the earlier responses, until the request's body is released.
    /// - Throws: 400 when one of them is unknown or has not ended, or the conversation is too long; 429 beyond the tenant's bytes.
    private func conversation(
        _ request: ResponsesRequest, owner: String, _ share: HTTPShare?
    ) async throws(HTTPErrorResponse) -> Conversation {
        /// Items of the responses, the latest first.
        var history: [[JSON]] = []
        var size = 0
        var previous = request.previousID
        while let identifier = previous {
            guard let id = ResponseObject.job(of: identifier), let (stored, object) = try await load(id, owner: owner) else {
                throw HTTPErrorResponse.invalid(
                    "\"previous_response_id\": there is no response \(identifier.prefix(NameLimit.id))", code: "previous_response_not_found"
                )
            }
            let answer = try await self.answer(of: object, owner: owner)
            guard answer.ending != nil else {
                throw HTTPErrorResponse.invalid(
                    "\"previous_response_id\": the response \(identifier) has not ended; cancel it or wait for its end")
            }
            let items = stored.items + object.output(answer)
            let bytes = items.reduce(0) { $0 + $1.bytes.count }
            try share?.hold(bytes)
            size += bytes
            guard size <= context.settings.bodyMaximum, history.count < Self.chainMaximum else {
                throw HTTPErrorResponse.invalid(
                    "\"previous_response_id\": the conversation is longer than \(context.settings.bodyMaximum) bytes")
            }
            history.append(items)
            try await onQueue { () throws(QueueError) in try await store.touch(id, owner: owner) }
            previous = stored.echo["previous_response_id"]?.string
        }
        var conversation = request.conversation
        let messages = try ResponseItems.messages(of: history.reversed().flatMap(\.self) + request.items)
        if let instructions = request.instructions { conversation.messages.append(.system([.text(instructions)])) }
        conversation.messages += try ResponseItems.closed(messages)
        return conversation
    }

    // MARK: reading

    /// A stored response of the tenant; nil when there is none.
    private func load(_ id: JobID, owner: String) async throws(HTTPErrorResponse) -> (StoredResponse, ResponseObject)? {
        let stored = try await onQueue { () throws(QueueError) in try await store.load(id, owner: owner) }
        guard let stored else { return nil }
        return (
            stored,
            ResponseObject(
                id: id, created: stored.created, isBackground: stored.isBackground, summarizes: stored.summarizes, echo: stored.echo)
        )
    }

    /// The stored response in the request's path.
    /// - Throws: 404 when there is none, or it is another tenant's.
    private func own(_ requestContext: GatewayRequestContext) async throws(HTTPErrorResponse) -> (StoredResponse, ResponseObject) {
        let owner = try requestContext.requireTenant().name
        let identifier = requestContext.jobParameter
        guard let id = ResponseObject.job(of: identifier), let found = try await load(id, owner: owner) else {
            throw HTTPErrorResponse(
                .notFound, code: "response_not_found", "Response with id '\(identifier.prefix(NameLimit.id))' not found.")
        }
        return found
    }

    /// The answer as far as it is logged.
    private func answer(of object: ResponseObject, owner: String) async throws(HTTPErrorResponse) -> Answer {
        var answer = Answer(model: object.model, keepsMarks: true)
        var cursor: String?
        while answer.ending == nil {
            let page = try await onQueue { [cursor] () throws(QueueError) in
                try await context.queue.logPage(object.id, after: cursor, size: JobEventRoute.pageSize, inTurnOf: owner)
            }
            for event in page.events where answer.ending == nil { answer.take(event.event) }
            guard !page.isLast, let end = page.end else { break }
            cursor = end
        }
        if answer.ending == nil, try await isLost(object.id) { answer.take(.failed(Self.lost, .none)) }
        return answer
    }

    private static let lost = Failure(.internal, "Redis lost the response; create it again")

    /// Whether the job of a stored response is gone, or ended without a log.
    private func isLost(_ id: JobID) async throws(HTTPErrorResponse) -> Bool {
        try await onQueue { () throws(QueueError) in
            let record = try await context.queue.record(id)
            guard record?.state?.isTerminal ?? true else { return false }
            // The job may have ended after its log was read.
            return try await context.queue.lastEvents([id]).first.flatMap(\.self) == nil
        }
    }

    /// Answers with the response object, or with its events after one of them.
    private func answer(
        _ id: JobID, owner: String, streams: Bool, after: Int?, _ requestContext: GatewayRequestContext
    ) async throws(HTTPErrorResponse) -> Response {
        guard let (_, object) = try await load(id, owner: owner) else { throw HTTPErrorResponse.unknownJob }
        guard streams else {
            // Before the log: an end that follows is in the log.
            let hasBegun = try await onQueue { () throws(QueueError) in try await context.queue.record(id)?.state } == .running
            let answer = try await answer(of: object, owner: owner)
            let status = hasBegun || !object.isBackground ? ResponseObject.Status.inProgress : .queued
            return .json(object.json(answer, status: status), headers: [.cacheControl: "no-store", .job: id.rawValue])
        }
        let encoder = ResponseEventEncoder(ResponsesStream(object, after: after))
        let record = try await onQueue { () throws(QueueError) in try await context.queue.record(id) }
        let stream = try await JobEventStream.open(id, after: nil, record, context: context, requestContext)
        return stream.response(encoder, ifEmpty: Self.lost, headers: [.job: id.rawValue])
    }

    @Sendable
    private func show(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (stored, object) = try await own(requestContext)
        let query = request.uri.queryParameters
        let streams = query["stream"].map { $0 == "true" || $0 == "1" } ?? false
        var after: Int?
        if let text = query["starting_after"] {
            guard let number = Int(text), number >= 0 else {
                throw HTTPErrorResponse.invalid("\"starting_after\" must be a whole number from 0")
            }
            guard streams else { throw HTTPErrorResponse.invalid("\"starting_after\" requires \"stream=true\"") }
            after = number
        }
        return try await answer(object.id, owner: stored.owner, streams: streams, after: after, requestContext)
    }

    // MARK: changing

    /// Interrupts a response's job and answers when it has ended, or after `cancelPatience` with its current status. A response that has
    /// ended is answered unchanged.
    @Sendable
    private func cancel(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (stored, object) = try await own(requestContext)
        let last = try await onQueue { () throws(QueueError) in try await context.queue.lastEvents([object.id]).first.flatMap(\.self) }
        try await interrupt(object.id, owner: stored.owner)
        let answer = try await answer(of: object, owner: stored.owner)
        if answer.ending == nil { try await waitForEnd(of: object.id, after: last) }
        let final = answer.ending == nil ? try await self.answer(of: object, owner: stored.owner) : answer
        return .json(object.json(final, status: .inProgress), headers: [.cacheControl: "no-store", .job: object.id.rawValue])
    }

    /// Waits until the job has ended, or `cancelPatience` has passed.
    private func waitForEnd(of id: JobID, after: EventID?) async throws(HTTPErrorResponse) {
        let inbox = EventInbox(maximumSize: JobEventRoute.pageSize, overflow: .fallBehind) {}
        let following = try await onQueue { () throws(QueueError) in
            try await context.feed.follow(id, after: after) { inbox.deliver($0) }
        }
        let alarm = context.eventLoop.scheduleTask(in: Self.cancelPatience) { inbox.nudge() }
        defer {
            alarm.cancel()
            context.feed.stop(following)
        }
        while true {
            switch await inbox.next() {
            case .events(let events): if events.contains(where: \.event.isTerminal) { return }
            case .heartbeat: continue
            case .behind: inbox.catchUp()
            case .nudge, .clientGone, .tooSlow: return
            }
        }
    }

    private func interrupt(_ id: JobID, owner: String) async throws(HTTPErrorResponse) {
        let answer = try await onQueue { () throws(QueueError) in
            try await context.queue.forceInterrupt(id, reason: InterruptReason.userStop, owner: owner)
        }
        GatewayMetrics.interrupted(answer)
    }

    /// Deletes a response; one that is running is interrupted.
    @Sendable
    private func delete(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (stored, object) = try await own(requestContext)
        try await interrupt(object.id, owner: stored.owner)
        _ = try await onQueue { () throws(QueueError) in try await store.delete(object.id, owner: stored.owner) }
        return .json(["id": .string(ResponseObject.identifier(of: object.id)), "object": "response", "deleted": true])
    }

    // MARK: input items

    @Sendable
    private func inputItems(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (stored, _) = try await own(requestContext)
        let query = request.uri.queryParameters
        var items = stored.items
        switch query["order"] {
        case nil, "desc"?: items.reverse()
        case "asc"?: break
        default: throw HTTPErrorResponse.invalid("\"order\" must be asc or desc")
        }
        if let after = query["after"].map(String.init) {
            guard let position = items.firstIndex(where: { $0["id"]?.string == after }) else {
                throw HTTPErrorResponse.invalid("\"after\" must be the id of an item")
            }
            items.removeFirst(position + 1)
        }
        guard let limit = Int(query["limit"] ?? "20"), (1...100).contains(limit) else {
            throw HTTPErrorResponse.invalid("\"limit\" must be 1 to 100")
        }
        let page = Array(items.prefix(limit))
        return .json(
            [
                "object": "list", "data": .array(page), "first_id": page.first?["id"] ?? .null, "last_id": page.last?["id"] ?? .null,
                "has_more": .bool(page.count < items.count),
            ], headers: [.cacheControl: "no-store"])
    }
}

/// Encodes the events of a stored response for a client that resumes it.
private struct ResponseEventEncoder: EventEncoder {
    private var stream: ResponsesStream

    init(_ stream: ResponsesStream) { self.stream = stream }

    mutating func begin() -> [UInt8] {
        var out: [UInt8] = []
        stream.begin(out: &out)
        return out
    }

    mutating func encode(_ events: [LoggedEvent]) -> [UInt8] {
        var out: [UInt8] = []
        for event in events { _ = stream.take(event.event, out: &out) }
        return out
    }
}

extension HTTPErrorResponse {
    /// Whether a job was refused and therefore does not exist.
    fileprivate var isRefusal: Bool { status == .tooManyRequests || status == .conflict || code == "draining" }
}
