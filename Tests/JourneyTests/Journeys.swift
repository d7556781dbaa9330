import Contract
import TestSupport
import Testing

/// End-to-end tests with real processes. They run one after the other, because each starts a Redis, a simulator and several nodes.
@Suite(.serialized, .timeLimit(.minutes(10)))
enum Journeys {}

/// The end-to-end tests with faults: killed and frozen processes, lost connections and data, hostile clients. They run beside `Journeys`,
/// because they mostly wait for leases and timeouts.
@Suite(.serialized, .timeLimit(.minutes(10)))
enum FaultJourneys {}

extension Lab {
    /// Waits for the end of the simulator's only request of this model.
    func endedRequest(model: String, deadline: Duration = .testDeadline) async throws -> SimulatorRequest {
        let ended: SimulatorRequest = try await until("the upstream request of \(model) to end", deadline: deadline) {
            try await upstream().of(model: model).first { $0.end != nil }
        }
        return ended
    }

    /// Waits for the end of the request of this model with this index in order of acceptance.
    func endedRequest(_ number: Int, model: String, deadline: Duration = .testDeadline) async throws -> SimulatorRequest {
        try await until("upstream request \(number) of \(model) to end", deadline: deadline) { () -> SimulatorRequest? in
            let requests = try await upstream().of(model: model).sorted { $0.accepted < $1.accepted }
            return requests.count > number && requests[number].end != nil ? requests[number] : nil
        }
    }

    /// The worker that runs a job, and the other worker.
    func owner(of id: String, among workers: [Node]) async throws -> (Node, other: Node) {
        let name = try await record(id)["worker"]
        guard workers.count == 2, let owner = workers.first(where: { $0.name == name }),
            let other = workers.first(where: { $0.name != name })
        else { throw WaitedInVain(description: "job \(id) is run by \(name ?? "no worker")") }
        return (owner, other)
    }

    func running(_ count: Int) async throws {
        try await until("\(count) requests to run upstream") { try await upstream().running == count }
    }

    func record(_ id: String) async throws -> [String: String] { try await redis.command("HGETALL", "{sluice.0}:job:\(id)").fields }

    /// The log of a job in Redis, checked.
    func log(_ id: String, model: String?) async throws -> EventChecker {
        let connection = try await redis.connect()
        let log = try await FollowedJob.log(of: id, model: model, connection)
        await connection.close()
        return log
    }
}

extension ClientRequest {
    /// The id of its job, known since its first frame.
    var job: String {
        get throws { try #require(checker.job) }
    }
}

/// An unexpected failure of a test's own helper.
struct Unexpected: Error {
    let description: String
}
