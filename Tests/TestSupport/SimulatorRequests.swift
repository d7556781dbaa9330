import Contract
import JSONCodec

/// What the upstream saw: `GET /sim/requests` of the simulator. Times are CLOCK_MONOTONIC nanoseconds.
package struct SimulatorRequest: Sendable, Hashable {
    package enum End: String, Sendable {
        case done, dropped, error
        case clientClosed = "client_closed"
    }

    /// The body's `user`, else `x-request-id`, which is the job's id.
    package var tag: String
    package var model: String
    /// The header of W3C Trace Context.
    package var traceparent: String
    package var tokens: Int
    /// Nil while it runs.
    package var end: End?
    package var accepted: Int
    package var firstToken: Int?
    /// When the client's closing was noticed, also by a model that goes on regardless (`-z`).
    package var clientLeft: Int?
    package var ended: Int?

    init?(_ json: JSON) {
        guard let tag = json["tag"]?.string, let model = json["model"]?.string, let tokens = json["tokens"]?.integer,
            let accepted = json["accept_ns"]?.integer
        else { return nil }
        self.tag = tag
        self.model = model
        traceparent = json["traceparent"]?.string ?? ""
        self.tokens = tokens
        self.accepted = accepted
        end = json["how"]?.string.flatMap(End.init)
        firstToken = json["first_token_ns"]?.integer
        clientLeft = json["client_left_ns"]?.integer
        ended = json["end_ns"]?.integer
    }
}

package struct SimulatorRequests: Sendable {
    package let requests: [SimulatorRequest]
    /// How many there ever were.
    package let total: Int
    package let running: Int

    package init(port: Int) async throws {
        let answer = try await HTTPCall.get(port, "/sim/requests")
        guard answer.status == 200, let json = answer.json, let list = json["requests"]?.array, let total = json["total"]?.integer,
            let running = json["running"]?.integer
        else { throw WaitedInVain(description: "the simulator's /sim/requests answered \(answer.status): \(answer.body.prefix(300))") }
        requests = try list.map { entry in
            guard let request = SimulatorRequest(entry) else {
                throw WaitedInVain(description: "not a request of the simulator: \(entry.text)")
            }
            return request
        }
        self.total = total
        self.running = running
    }

    package func of(model: String) -> [SimulatorRequest] { requests.filter { $0.model == model } }
}

/// What the simulator's `sim-n<N>-…` answers: token i is ` w<i>`.
package enum SimulatorText {
    package static func tokens(_ count: Int) -> String { (0..<count).map { " w\($0)" }.joined() }

    /// The whole text of a model whose text is known; nil for others.
    package static func whole(model: String) -> String? {
        let parts = model.split(separator: "-")
        guard parts.first == "sim", let count = parts.first(where: { $0.first == "n" }).flatMap({ Int($0.dropFirst()) }) else { return nil }
        return tokens(count)
    }
}
