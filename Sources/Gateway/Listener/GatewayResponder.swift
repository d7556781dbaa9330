import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTPTypes

/// Creates the closure that passes each HTTP request to the router and writes its response.
enum GatewayResponder {
    static func make(
        _ router: some HTTPResponder<GatewayRequestContext>, readiness: Readiness, logger: Logger
    ) -> HTTPChannelHandler.Responder {
        let date = DateField()
        return { request, writer, channel in
            var response: Response
            if request.uri.path == GatewayChannel.path {
                // The request has no upgrade, or not a valid one (RFC 6455, 4.2.1); valid upgrades do not reach the router.
                var failure = HTTPErrorResponse(
                    .upgradeRequired, code: "upgrade_required",
                    "this path needs a WebSocket upgrade (RFC 6455, version 13) as the first request of a connection"
                )
                failure.headers = [.upgrade: "websocket", .secWebSocketVersion: "13"]
                Refusals.count(.upgrade, code: failure.code)
                response = .json(failure.json, status: failure.status, headers: failure.headers)
            } else {
                let context = GatewayRequestContext(source: ApplicationRequestContextSource(channel: channel, logger: logger))
                do { response = try await router.respond(to: request, context: context) } catch {
                    logger.error("request failed unexpectedly", metadata: ["path": "\(request.uri.path)", "error": "\(error)"])
                    response = Response(status: .internalServerError)
                }
            }
            response.headers[.date] = date.value
            // A load balancer must not reuse a connection that is about to be closed (RFC 9112, 9.6).
            if readiness.isDraining { response.headers[.connection] = "close" }
            try await writer.write(response: response.head, body: response.body)
        }
    }
}
