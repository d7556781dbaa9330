import Contract
import Foundation
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import Logging

/// `GET /v1/models` and `GET /v1/models/<id>` in the form of the OpenAI API. The list holds the gateway's own models and those that the live
/// workers report.
struct ModelRoutes: Sendable {
    let context: GatewayContext
    /// Listed first and also while Redis is unreachable.
    let own: [String]

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.get("models") { _, _ -> Response in
            let list = await models()
            return Response.json(["object": "list", "data": .array(list.map(Self.object))])
        }
        // A model's name may contain slashes.
        group.get("models/**") { _, requestContext -> Response in
            let id = requestContext.parameters.getCatchAll().joined(separator: "/")
            let name = id.removingPercentEncoding ?? id
            guard await models().contains(name) else {
                throw HTTPErrorResponse(.notFound, code: "model_not_found", "no such model: \(name.prefix(NameLimit.model))")
            }
            return Response.json(Self.object(name))
        }
    }

    private func models() async -> [String] {
        do {
            let served = try await context.queue.servedModels()
            return own + served.filter { !own.contains($0) }
        } catch {
            context.logger.debug("models of the workers could not be read", metadata: ["error": "\(error)"])
            return own
        }
    }

    private static func object(_ id: String) -> JSON { ["id": .string(id), "object": "model", "created": 0, "owned_by": "sluice"] }
}
