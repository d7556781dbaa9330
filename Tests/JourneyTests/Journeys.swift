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
