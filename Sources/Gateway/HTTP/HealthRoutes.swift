import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import NIOCore

/// What probes and Prometheus ask.
struct HealthRoutes: Sendable {
    let readiness: Readiness
    let metrics: @Sendable () -> String

    func add(to router: Router<GatewayRequestContext>) {
        router.get("healthz") { _, _ in Response.json(HealthAnswer.up.json) }
        router.get("readyz") { _, _ in
            let answer = HealthAnswer.readiness(readiness.problem)
            return Response.json(answer.json, status: answer.isGood ? .ok : .serviceUnavailable)
        }
        router.get("metrics") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: metrics())))
        }
    }
}

/// What a probe is told.
struct HealthAnswer {
    static let up = HealthAnswer(isGood: true, json: ["status": "up"])

    /// - Parameter problem: why the gateway is not ready; nil: it is.
    static func readiness(_ problem: String?) -> HealthAnswer {
        guard let problem else { return HealthAnswer(isGood: true, json: ["status": "ready"]) }
        return HealthAnswer(isGood: false, json: ["status": "not ready", "reason": .string(problem)])
    }

    let isGood: Bool
    let json: JSON
}

/// `GET /v1/models`, as the OpenAI API has it.
func modelList(_ models: [String]) -> Response {
    let list = models.map { id -> JSON in ["id": .string(id), "object": "model", "created": 0, "owned_by": "sluice"] }
    return .json(["object": "list", "data": .array(list)])
}
