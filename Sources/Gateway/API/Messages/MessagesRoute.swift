import Contract
import HTTPTypes
import Hummingbird
import JSONCodec

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

    /// Estimates the tokens of a prompt with the rule that usage is estimated by. The header says that it is an estimate.
    @Sendable
    private func count(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        _ = try requestContext.requireTenant()
        let body = try await request.collect(upTo: context.settings.bodyMaximum, requestContext.share)
        let tokens = try await requestContext.parse(body) { (body) throws(HTTPErrorResponse) in
            TokenEstimate.prompt(
                try MessagesRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum, counts: true).conversation.chatBody)
        }
        return .json(["input_tokens": .integer(tokens)], headers: [.tokenCount: "estimated"])
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
