import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Chaos {
    /// Two gateways, three workers and many running streams: every process except Redis and the upstream is killed once.
    @Suite struct KillInTurnTests {
        private struct Outcome: Sendable {
            let model: String
            let checker: RequestChecker
            let asked: Bool
        }

        @Test func `kill -9 of every process in turn: all streams are completed or interrupted on request`() async throws {
            let streams = ChaosSettings.streams
            try await withLab { lab in
                let deployment = try await Deployment.start(lab, workers: 3, gateways: 2, seed: ChaosSettings.seed, ["SLUICE_LEASE": "2s"])
                // Long streams; every eighth is interrupted.
                let models = (0..<streams).map { _ in lab.model("sim-n400-g40") }
                let outcomes = try await withThrowingTaskGroup(of: Outcome.self) { tasks in
                    for (index, model) in models.enumerated() {
                        tasks.addTask {
                            try await Self.stream(deployment, model, gateway: index % 2, interruptAt: index % 8 == 7 ? 250 : nil)
                        }
                    }
                    tasks.addTask {
                        try await until("all streams to run", deadline: .seconds(120)) { try await lab.upstream().running >= streams }
                        for member in deployment.workers + deployment.gateways {
                            let lost = try await Self.attempts(of: member.node.name, lab)
                            await member.node.kill9()
                            try member.node.start()
                            try await member.node.ready()
                            // The next one is killed when the lost jobs run again.
                            try await until("\(lost.count) jobs to be taken over", deadline: .seconds(120), every: .milliseconds(100)) {
                                let now = try await Self.attempts(of: nil, lab)
                                return lost.allSatisfy { id, attempt in now[id].map { $0 > attempt } ?? true }
                            }
                        }
                        return Outcome(model: "", checker: RequestChecker(id: "", model: nil), asked: false)
                    }
                    var outcomes: [Outcome] = []
                    for try await outcome in tasks where !outcome.model.isEmpty { outcomes.append(outcome) }
                    return outcomes
                }
                var checker = ChaosChecker()
                try await checker.waitForRest(lab, deadline: .seconds(120))
                let stories = outcomes.map { outcome in
                    var story = RequestStory(model: outcome.model)
                    story.checker = outcome.checker
                    story.askedForInterrupt = outcome.asked
                    return story
                }
                try await checker.check(lab, stories)
                #expect(checker.problems.isEmpty, "\(checker.problems.prefix(10))")
                #expect(checker.figures.jobs == streams && outcomes.count == streams)
                #expect(checker.figures.failed == 0 && checker.figures.fewestTerminals == 1 && checker.figures.mostTerminals == 1)
                #expect(checker.figures.interrupted <= (streams + 7) / 8)
                print(
                    "kill in turn: \(streams) streams, \(checker.figures.finished) whole, \(checker.figures.interrupted) interrupted as asked, "
                        + "\(checker.figures.attempts) attempts")
            }
        }

        /// The attempts of the running jobs of a worker; nil for all workers.
        private static func attempts(of worker: String?, _ lab: Lab) async throws -> [String: Int] {
            let redis = try await lab.redis.connect()
            let records = try await ChaosChecker.records(redis).filter { $0.value["state"] == "running" }
            await redis.close()
            return records.filter { worker == nil || $0.value["worker"] == worker }.compactMapValues { $0["attempt"].flatMap { Int($0) } }
        }

        /// A client that reconnects to the other gateway when its socket closes.
        private static func stream(_ deployment: Deployment, _ model: String, gateway first: Int, interruptAt: Int?) async throws -> Outcome
        {
            var gateway = first
            var client = try await connect(deployment, &gateway, session: nil)
            var request = try await client.request(model: model)
            var asked = false
            let end = ContinuousClock.now + .seconds(400)
            while true {
                do {
                    if let interruptAt, !asked {
                        try await request.tokens(interruptAt, deadline: end - .now)
                        asked = true
                        try await client.interrupt(.string(request.id))
                    }
                    try await request.ended(deadline: end - .now)
                    await client.close()
                    return Outcome(model: model, checker: request.checker, asked: asked)
                } catch {
                    guard ContinuousClock.now < end, !client.isOpen else { throw error }
                    let session = client.state.value.session
                    client = try await connect(deployment, &gateway, session: session)
                    request = try await client.resume(request)
                    // An interrupt without an answer may not have arrived, so it is sent again.
                    asked = false
                }
            }
        }

        private static func connect(_ deployment: Deployment, _ gateway: inout Int, session: String?) async throws -> WebSocketClient {
            let fields = session.map { [("resume_session_id", JSON.string($0))] } ?? []
            let end = ContinuousClock.now + .testDeadline
            while true {
                do {
                    let client = try await WebSocketClient.connect(port: deployment.gateways[gateway].node.port)
                    try await client.register(key: deployment.lab.key, fields: fields)
                    return client
                } catch {
                    guard ContinuousClock.now < end else { throw error }
                    gateway = try await deployment.readyGateway(after: gateway, until: end)
                }
            }
        }
    }
}
