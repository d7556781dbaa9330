import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle

/// HTTP server of a worker with `/healthz`, `/readyz` and `/metrics`.
struct WorkerEndpoints: Sendable {
    let host: String
    let port: Int
    /// Returns nil when ready, else the reason for the 503 response.
    let readiness: @Sendable () -> String?
    /// Renders the body of `/metrics`.
    let metrics: @Sendable () -> String
    let logger: Logger

    /// Serves until the task is cancelled.
    /// - Throws: when the address cannot be bound.
    func run() async throws {
        let router = Router()
        router.get("/healthz") { _, _ in "ok\n" }
        router.get("/readyz") { [readiness] _, _ in
            let reason = readiness()
            return Self.text(reason.map { $0 + "\n" } ?? "ready\n", status: reason == nil ? .ok : .serviceUnavailable)
        }
        router.get("/metrics") { [metrics] _, _ in
            Self.text(metrics(), status: .ok, type: "text/plain; version=0.0.4; charset=utf-8")
        }
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let application = Application(
            router: router, configuration: .init(address: .hostname(host, port: port), serverName: nil), logger: quiet)
        let server = ServiceGroup(configuration: .init(services: [.init(service: application)], logger: quiet))
        // Detached from the graceful shutdown of the process: readiness is still queried during a drain.
        let serving = Task.detached { try await server.run() }
        try await withTaskCancellationHandler {
            try await serving.value
        } onCancel: {
            Task { await server.triggerGracefulShutdown() }
        }
    }

    private static func text(_ text: String, status: HTTPResponse.Status, type: String = "text/plain; charset=utf-8") -> Response {
        Response(status: status, headers: [.contentType: type], body: .init(byteBuffer: ByteBuffer(string: text)))
    }
}
