import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTPTypes
import Support

/// Creates the closure that passes each HTTP request to the router and writes its response.
enum GatewayResponder {
    static func make(
        _ router: some HTTPResponder<GatewayRequestContext>, webSocketPaths: [String], readiness: Readiness, logger: Logger
    ) -> HTTPChannelHandler.Responder {
        let date = DateField()
        return { request, writer, channel in
            var response: Response
            if webSocketPaths.contains(request.uri.path) {
                // The request has no upgrade, or not a valid one (RFC 6455, 4.2.1); valid upgrades do not reach the router.
                var failure = HTTPErrorResponse(
                    .upgradeRequired, code: "upgrade_required",
                    "this path needs a WebSocket upgrade (RFC 6455, version 13)"
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

/// The Date field of responses (RFC 9110, 6.6.1), formatted once per second. Thread-safe.
final class DateField: Sendable {
    private let last = NIOLockedValueBox<(second: Int, text: String)>((-1, ""))

    var value: String {
        let now = WallClock.seconds
        return last.withLockedValue { last in
            if last.second != now { last = (now, Self.text(now)) }
            return last.text
        }
    }

    /// The time as an IMF-fixdate (RFC 9110, 5.6.7), independent of the locale.
    /// - Parameter seconds: seconds since 1970.
    static func text(_ seconds: Int) -> String {
        let time = SystemCalls.calendarTime(secondsSince1970: seconds)
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        func twoDigits(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let clock = [time.hour, time.minute, time.second].map(twoDigits).joined(separator: ":")
        return
            "\(days[time.weekday]), \(twoDigits(time.day)) \(months[time.month - 1]) \(time.year) \(clock) GMT"
    }
}
