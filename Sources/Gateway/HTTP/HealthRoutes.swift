import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import NIOCore

/// `GET /healthz`, `GET /readyz` and `GET /metrics`. None of them requires authentication.
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

/// The response to a health or readiness probe.
struct HealthAnswer {
    static let up = HealthAnswer(isGood: true, json: ["status": "up"])

    /// - Parameter problem: the reason why the gateway is not ready; nil when it is ready.
    static func readiness(_ problem: String?) -> HealthAnswer {
        guard let problem else { return HealthAnswer(isGood: true, json: ["status": "ready"]) }
        return HealthAnswer(isGood: false, json: ["status": "not ready", "reason": .string(problem)])
    }

    let isGood: Bool
    let json: JSON
}
