import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import Logging
import Support

/// `POST /v1/messages` and `POST /v1/messages/count_tokens`, compatible with Anthropic's SDKs. Each message runs as a job.
struct MessagesRoute: Sendable {
    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("messages", use: create)
        group.post("messages/count_tokens", use: count)
    }

    @Sendable
    private func create(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let exchange = CompletionExchange(context: context)
        var idempotency = try exchange.idempotency(request, requestContext)
        let (chat, options) = try await exchange.read(request, requestContext) { (body) throws(HTTPErrorResponse) in
            idempotency?.digest = JobSubmission.digest(body)
            let parsed = try MessagesRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum)
            return (parsed.conversation.chatBody, parsed.options)
        }
        // Later errors name the fields of the job's body.
        do throws(HTTPErrorResponse) {
            let run = try await exchange.start(
                chat, id: exchange.newJobID(partition: idempotency?.partition), idempotency, request, requestContext)
            var response =
                if options.streams {
                    try await exchange.stream(
                        run,
                        MessagesStream(id: run.id, options, promptEstimate: TokenEstimate.prompt(chat)))
                } else {
                    try await exchange.collect(run, MessagesCollector(options))
                }
            response.headers[.requestID] = run.id.rawValue
            return response
        } catch {
            throw error.renaming(MessagesRequest.fieldNames)
        }
    }

    /// Counts the tokens of a prompt: by the upstream if it can, else by the rule that usage is estimated by. The header says which.
    @Sendable
    private func count(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        _ = try requestContext.requireTenant()
        let exchange = CompletionExchange(context: context)
        let chat = try await exchange.read(request, requestContext) { (body) throws(HTTPErrorResponse) in
            try MessagesRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum, counts: true).conversation.chatBody
        }
        let estimate = TokenEstimate.prompt(chat)
        if await isCounted(chat["model"]?.string ?? "") {
            do throws(HTTPErrorResponse) {
                let run = try await exchange.start(chat, id: exchange.newJobID(), nil, request, requestContext) { job in
                    job.countsTokens = true
                    job.onCrash = .restart
                    job.deadlineMilliseconds = WallClock.milliseconds + Self.countPatience.wholeMilliseconds
                }
                return try await exchange.collect(run, TokenCountCollector()).counted("exact")
            } catch {
                guard error.code != "client_gone" else { throw error }
                context.logger.debug("tokens not counted by the upstream", metadata: ["error": "\(error.message)"])
            }
        }
        return .json(["input_tokens": .integer(estimate)]).counted("estimated")
    }

    /// How long an upstream's count is waited for.
    private static let countPatience = Duration.seconds(10)

    /// Whether the upstream of a live worker counts this model's tokens.
    private func isCounted(_ model: String) async -> Bool {
        do {
            let models = try await context.queue.countedModels()
            return models.contains(model) || models.contains(WorkerReport.anyModel)
        } catch {
            context.logger.debug("counted models could not be read", metadata: ["error": "\(error)"])
            return false
        }
    }
}

/// Collects the count of a job with `countsTokens`.
private struct TokenCountCollector: AnswerCollector {
    private var text = ""

    mutating func take(_ event: GenerationEvent) throws(HTTPErrorResponse) -> Bool {
        switch event {
        case .restarted: text = ""
        case .text(let part): text += part
        case .failed(let failure, _): throw HTTPErrorResponse(failure)
        case .interrupted: throw HTTPErrorResponse(Failure(.internal, "the count was interrupted"))
        case .finished:
            guard let count = Int(text), count >= 0 else { throw HTTPErrorResponse(Failure(.internal, "the count is not a number")) }
            return true
        default: break
        }
        return false
    }

    func body(id: JobID, created: Int) -> [UInt8] { (["input_tokens": .integer(Int(text) ?? 0)] as JSON).bytes }
}

extension Response {
    /// A copy that says how tokens were counted.
    fileprivate func counted(_ how: String) -> Response {
        var response = self
        response.headers[.tokenCount] = how
        return response
    }
}

extension HTTPField.Name {
    /// The id of a request in Anthropic's API.
    static let requestID = HTTPField.Name("request-id")!
    /// Whether a count of tokens is exact or estimated.
    static let tokenCount = HTTPField.Name("x-sluice-token-count")!
    /// The credential in Anthropic's API.
    static let apiKey = HTTPField.Name("x-api-key")!
}
