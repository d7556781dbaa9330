import Contract
import TestSupport

extension Lab {
    func record(_ id: String) async throws -> [String: String] { try await redis.command("HGETALL", "{sluice.0}:job:\(id)").fields }

    /// The log of a job in Redis, judged.
    func log(_ id: String, model: String?) async throws -> EventJudge {
        let connection = try await redis.connect()
        let log = try await FollowedJob.log(of: id, model: model, connection)
        await connection.close()
        return log
    }

    /// The request of this model that was accepted as the `number`th, when it has ended.
    func endedRequest(_ number: Int, model: String, deadline: Duration = .seconds(15)) async throws -> SimulatorRequest {
        try await until("upstream request \(number) of \(model) to end", deadline: deadline) { () -> SimulatorRequest? in
            let requests = try await upstream().of(model: model).sorted { $0.accepted < $1.accepted }
            return requests.count > number && requests[number].end != nil ? requests[number] : nil
        }
    }

    /// The worker that runs a job, and the other one.
    func owner(of id: String, among workers: [Node]) async throws -> (Node, other: Node) {
        let name = try await record(id)["worker"]
        guard workers.count == 2, let owner = workers.first(where: { $0.name == name }), let other = workers.first(where: { $0.name != name }) else {
            throw WaitedInVain(description: "job \(id) is run by \(name ?? "nobody")")
        }
        return (owner, other)
    }
}
