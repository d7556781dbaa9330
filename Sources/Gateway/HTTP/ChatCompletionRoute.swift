import Hummingbird
import Support

/// `POST /v1/chat/completions`, compatible with OpenAI SDKs. Each request runs as a job.
struct ChatCompletionRoute: Sendable {
    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("chat/completions", use: complete)
    }

    @Sendable
    private func complete(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let exchange = CompletionExchange(context: context)
        var idempotency = try exchange.idempotency(request, requestContext)
        let parsed = try await exchange.read(request, requestContext) { (body) throws(HTTPErrorResponse) in
            idempotency?.digest = JobSubmission.digest(body)
            return try ChatCompletionRequest(parsing: body, maximumDepth: context.settings.jsonDepthMaximum)
        }
        let chat = parsed.options
        let run = try await exchange.start(
            parsed.body, id: exchange.newJobID(partition: idempotency?.partition), idempotency, request, requestContext)
        let reason = context.settings.interruptedFinishReason
        guard chat.streams else {
            return try await exchange.collect(run, ChatCompletion(model: chat.model ?? "", interruptedReason: reason))
        }
        return try await exchange.stream(
            run,
            ChatCompletionStream(
                id: run.id, created: WallClock.seconds, model: chat.model ?? "", includesUsage: chat.includesUsage,
                interruptedReason: reason))
    }
}
