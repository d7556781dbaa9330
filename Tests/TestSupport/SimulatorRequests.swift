import Contract
import JSONCodec

/// The requests received by the simulator, from `GET /sim/requests`. Times are CLOCK_MONOTONIC nanoseconds.
package struct SimulatorRequest: Sendable, Hashable {
    package enum End: String, Sendable {
        case done, dropped, error
        case clientClosed = "client_closed"
    }

    /// The body's `user`, else `x-request-id`, which is the job's id.
    package var tag: String
    package var model: String
    package var path: String
    /// The `traceparent` header of W3C Trace Context.
    package var traceparent: String
    package var tokens: Int
    /// Nil while the request is running.
    package var end: End?
    package var number: Int
    package var accepted: Int
    package var firstToken: Int?
    /// When the simulator noticed that the client closed the connection, also for a model that continues regardless (`-z`).
    package var clientLeft: Int?
    package var ended: Int?

    init?(_ json: JSON) {
        guard let tag = json["tag"]?.string, let model = json["model"]?.string, let tokens = json["tokens"]?.integer,
            let number = json["number"]?.integer, let accepted = json["accept_ns"]?.integer
        else { return nil }
        self.tag = tag
        self.model = model
        path = json["path"]?.string ?? ""
        traceparent = json["traceparent"]?.string ?? ""
        self.tokens = tokens
        self.number = number
        self.accepted = accepted
        end = json["how"]?.string.flatMap(End.init)
        firstToken = json["first_token_ns"]?.integer
        clientLeft = json["client_left_ns"]?.integer
        ended = json["end_ns"]?.integer
    }
}

package struct SimulatorRequests: Sendable {
    package let requests: [SimulatorRequest]
    /// The total number of requests.
    package let total: Int
    package let running: Int

    /// - Parameter since: only requests accepted from then on, CLOCK_MONOTONIC ns.
    package init(port: Int, since: Int = 0) async throws {
        let answer = try await HTTPCall.get(port, "/sim/requests?since=\(since)")
        // The list may have more values than a document of a client.
        let parsed = try? JSON(parsing: answer.body.utf8, rules: .lenient)
        guard answer.status == 200, let json = parsed, let list = json["requests"]?.array, let total = json["total"]?.integer,
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

/// The answers of the simulator's `sim-n<N>-…` models: token i is ` w<i>`.
package enum SimulatorText {
    package static func tokens(_ count: Int) -> String { (0..<count).map { " w\($0)" }.joined() }

    /// The complete text of a model; nil for models whose text is unknown.
    package static func whole(model: String) -> String? {
        let parts = model.split(separator: "-")
        guard parts.first == "sim", let count = parts.first(where: { $0.first == "n" }).flatMap({ Int($0.dropFirst()) }) else { return nil }
        return tokens(count)
    }
}
