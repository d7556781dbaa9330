import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTPTypes

/// Hands a request to the router and writes what it answers.
enum GatewayResponder {
    static func make(
        _ router: some HTTPResponder<GatewayRequestContext>, readiness: Readiness, logger: Logger
    ) -> HTTPChannelHandler.Responder {
        let date = DateField()
        return { request, writer, channel in
            var response: Response
            if request.uri.path == GatewayChannel.path {
                // Whoever comes here did not ask for an upgrade, or not as RFC 6455 section 4.2.1 wants it.
                var failure = HTTPFailure(
                    .upgradeRequired, code: "upgrade_required", "this is a WebSocket: RFC 6455, version 13, as a connection's first request"
                )
                failure.headers = [.upgrade: "websocket", .secWebSocketVersion: "13"]
                Refusals.count(.upgrade, code: failure.code)
                response = .json(failure.json, status: failure.status, headers: failure.headers)
            } else {
                let context = GatewayRequestContext(source: ApplicationRequestContextSource(channel: channel, logger: logger))
                do { response = try await router.respond(to: request, context: context) } catch {
                    logger.error("a request failed unexpectedly", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
                    response = Response(status: .internalServerError)
                }
            }
            response.headers[.date] = date.value
            // A balancer shall not send its next request by a connection that is about to end (RFC 9112, 9.6).
            if readiness.isDraining { response.headers[.connection] = "close" }
            try await writer.write(response: response.head, body: response.body)
        }
    }
}
