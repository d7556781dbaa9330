import Contract
import HTTPTypes
import Hummingbird
import NIOCore

/// What probes and Prometheus ask.
struct HealthRoutes: Sendable {
    let readiness: Readiness
    let metrics: @Sendable () -> String

    func add(to router: Router<GatewayRequestContext>) {
        router.get("healthz") { _, _ in Response.json(["status": "up"]) }
        router.get("readyz") { _, _ in
            guard let problem = readiness.problem else { return Response.json(["status": "ready"]) }
            return Response.json(["status": "not ready", "reason": .string(problem)], status: .serviceUnavailable)
        }
        router.get("metrics") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: metrics())))
        }
    }
}

/// `GET /v1/models`, as the OpenAI API has it.
func modelList(_ models: [String]) -> Response {
    let list = models.map { id -> JSON in ["id": .string(id), "object": "model", "created": 0, "owned_by": "sluice"] }
    return .json(["object": "list", "data": .array(list)])
}
