import Contract
import TestSupport
import Testing

/// What the product is for, with real processes from end to end. One after the other: each brings a Redis, a simulator and several nodes.
@Suite(.serialized, .timeLimit(.minutes(1)))
enum Journeys {}

/// What the lab gives every node.
let lease = Duration.seconds(3)

extension Lab {
    /// The simulator's one request of this model, ended.
    func endedRequest(model: String, deadline: Duration = .seconds(10)) async throws -> SimulatorRequest {
        let ended: SimulatorRequest = try await until("the upstream request of \(model) to end", deadline: deadline) {
            try await upstream().of(model: model).first { $0.end != nil }
        }
        return ended
    }

    /// The request of this model that was accepted as the `number`th, from 0, when it has ended.
    func endedRequest(_ number: Int, model: String, deadline: Duration = .seconds(15)) async throws -> SimulatorRequest {
        try await until("upstream request \(number) of \(model) to end", deadline: deadline) { () -> SimulatorRequest? in
            let requests = try await upstream().of(model: model).sorted { $0.accepted < $1.accepted }
            return requests.count > number && requests[number].end != nil ? requests[number] : nil
        }
    }

    /// The worker that runs a job, and the other one.
    func owner(of id: String, among workers: [Node]) async throws -> (Node, other: Node) {
        let name = try await record(id)["worker"]
        guard workers.count == 2, let owner = workers.first(where: { $0.name == name }),
            let other = workers.first(where: { $0.name != name })
        else { throw WaitedInVain(description: "job \(id) is run by \(name ?? "nobody")") }
        return (owner, other)
    }

    func running(_ count: Int) async throws {
        try await until("\(count) requests to run upstream") { try await upstream().running == count }
    }

    func record(_ id: String) async throws -> [String: String] { try await redis.command("HGETALL", "{sluice.0}:job:\(id)").fields }

    /// The log of a job in Redis, judged.
    func log(_ id: String, model: String?) async throws -> EventJudge {
        let connection = try await redis.connect()
        let log = try await FollowedJob.log(of: id, model: model, connection)
        await connection.close()
        return log
    }
}

extension ClientRequest {
    /// The job behind it, known since its first frame.
    var job: String {
        get throws { try #require(judge.job) }
    }
}

/// What a test's own tool could not do.
struct Unexpected: Error {
    let description: String
}
