import Contract
import JSONCodec
import NIOHTTP1
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// Isolation of tenants: tenant A's access to objects of tenant B gives exactly the same result as access to objects that do not exist.
@Suite(.redis, .timeLimit(.minutes(10))) struct IsolationTests {
    /// The ids that an attempt uses: of B's objects, or of the same form but never created.
    private struct Names {
        var session: String
        var request: String
        var job: String
        var endedJob: String
        var all: [String] { [session, request, job, endedJob] }
    }

    private struct Attempt: Sendable {
        let what: String
        let make: @Sendable (Names) -> (type: String, payload: JSON, session: String?)
    }

    private static let socketAttempts: [Attempt] = [
        Attempt(what: "RESUME of a request") { ("RESUME", ["request_id": .string($0.request)], nil) },
        Attempt(what: "RESUME from an event") { ("RESUME", ["request_id": .string($0.request), "last_event_id": "1-1"], nil) },
        Attempt(what: "RESUME of a job") { ("RESUME", ["request_id": .string($0.job)], nil) },
        Attempt(what: "INTERRUPT of a request") {
            ("INTERRUPT", ["interrupt_request_id": .string($0.request), "reason": "USER_STOP"], nil)
        },
        Attempt(what: "INTERRUPT of a list") {
            ("INTERRUPT", ["interrupt_request_id": [.string($0.request), .string($0.job)], "reason": "USER_STOP"], nil)
        },
        Attempt(what: "SESSION_QUERY in a session") { ("SESSION_QUERY", [:], $0.session) },
        Attempt(what: "INTERRUPT in a session") { ("INTERRUPT", ["reason": "USER_STOP"], $0.session) },
        Attempt(what: "RESUME in a session") { ("RESUME", ["request_id": .string($0.request)], $0.session) },
        Attempt(what: "SHUTDOWN of a session") { ("SHUTDOWN", [:], $0.session) },
    ]

    private static let callAttempts: [(what: String, method: String, path: @Sendable (Names) -> String, headers: [String: String])] = [
        ("a running job", "GET", { "/v1/jobs/\($0.job)" }, [:]), ("an ended job", "GET", { "/v1/jobs/\($0.endedJob)" }, [:]),
        ("the events of a running job", "GET", { "/v1/jobs/\($0.job)/events" }, [:]),
        ("the events of an ended job", "GET", { "/v1/jobs/\($0.endedJob)/events" }, [:]),
        ("events after one", "GET", { "/v1/jobs/\($0.job)/events" }, ["last-event-id": "1-1"]),
        ("events after all of them", "GET", { "/v1/jobs/\($0.endedJob)/events" }, ["last-event-id": "9-0"]),
        ("events after rubbish", "GET", { "/v1/jobs/\($0.job)/events" }, ["last-event-id": "rubbish"]),
        ("an interrupt", "POST", { "/v1/jobs/\($0.job)/interrupt" }, [:]),
        ("an interrupt of an ended job", "POST", { "/v1/jobs/\($0.endedJob)/interrupt" }, [:]),
        ("a completion's id", "GET", { "/v1/jobs/chatcmpl-\($0.job)" }, [:]),
        ("a session as a job", "GET", { "/v1/jobs/\($0.session)" }, [:]),
        ("a job's head", "HEAD", { "/v1/jobs/\($0.job)" }, [:]), ("a method that is not there", "DELETE", { "/v1/jobs/\($0.job)" }, [:]),
    ]

    @Test func `another tenant's session, requests, jobs and streams do not exist`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let owner = try await lab.client(gateway, key: "tenant-b-test-key")
            let ended = try await owner.request("one", model: "m")
            let endedJob = try await lab.claim()
            try await endedJob.end(.finished(.stop, Usage(promptTokens: 1, completionTokens: 2, estimated: false)))
            _ = try await owner.state.wait({ _ in "the end of the first" }) { $0.requests[ended.id]?.end }
            let running = try await owner.request("two", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("secret"))

            let existing = Names(
                session: owner.state.value.session, request: running.id, job: job.job.id.rawValue, endedJob: endedJob.job.id.rawValue)
            func other(_ id: String) -> String { JobID(partition: 0, milliseconds: 1_700_000_000_000).rawValue }
            let missing = Names(session: other("s"), request: "r-never-was", job: other("j"), endedJob: other("e"))

            for attempt in Self.socketAttempts {
                let answers = try await [existing, missing].asyncMap { try await Self.answer(attempt, $0, gateway, lab) }
                #expect(answers[0] == answers[1], "\(attempt.what)")
            }
            let registrations = try await [existing, missing].asyncMap { names in
                let client = try await WebSocketClient.connect(port: gateway.port)
                try await client.send(
                    "REGISTER",
                    [
                        "auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"], "platform": "WEB",
                        "resume_session_id": .string(names.session),
                    ])
                let frame = try await client.expect("ERROR")
                await client.close()
                return Self.masked("\(frame.type) \(frame.payload.text)", names)
            }
            #expect(registrations[0] == registrations[1], "REGISTER")

            for attempt in Self.callAttempts {
                let answers = try await [existing, missing].asyncMap { names in
                    var headers = attempt.headers
                    headers["authorization"] = "Bearer tenant-a-test-key"
                    var answer = try await HTTPCall.send(
                        .init(rawValue: attempt.method), gateway.port, attempt.path(names), headers: headers)
                    answer.headers["date"] = nil
                    answer.headers["x-request-id"] = nil
                    let fields = answer.headers.sorted { $0.key < $1.key }.map { "\($0): \($1)" }.joined(separator: "\n")
                    return Self.masked("\(answer.status)\n\(fields)\n\(answer.body)", names)
                }
                #expect(answers[0] == answers[1], "\(attempt.what)")
            }

            // No attempt had an effect.
            #expect(try await lab.queue.redis.send("EXISTS", .string(lab.queue.keys.interrupt(job.job.id))).integer == 0)
            try await job.end(.finished(.stop, Usage(promptTokens: 1, completionTokens: 2, estimated: false)))
            let end = try await owner.state.wait({ _ in "the end of the second" }) { $0.requests[running.id]?.end }
            #expect(end == .finished && owner.problems.isEmpty)
            await owner.close()
        }
    }

    /// All frames that a new socket of A receives after an attempt, up to the acknowledgement of a health check.
    private static func answer(_ attempt: Attempt, _ names: Names, _ gateway: WebSocketLab.Gateway, _ lab: WebSocketLab) async throws
        -> String
    {
        let client = try await lab.client(gateway)
        let own = client.state.value.session
        let (type, payload, session) = attempt.make(names)
        try await client.send(text: WebSocketClient.envelope(type, payload, session: session ?? own))
        try await client.send("HEALTH_CHECK", [:])
        try await client.state.wait({ "an answer to \(attempt.what), \($0)" }) { state in
            state.waiting.contains { $0.type == "HEALTH_CHECK_ACK" } && state.waiting.count > 1 ? () : nil
        }
        let frames = client.state.value.waiting.filter { $0.type != "HEALTH_CHECK_ACK" }.map { "\($0.type) \($0.payload.text)" }
        await client.close()
        return masked(frames.joined(separator: "\n").replacing(own, with: "OWN"), names)
    }

    private static func masked(_ text: String, _ names: Names) -> String {
        names.all.enumerated().reduce(text) { $0.replacing($1.element, with: "ID\($1.offset)") }
    }
}

extension Array {
    fileprivate func asyncMap<Value>(_ body: (Element) async throws -> Value) async rethrows -> [Value] {
        var values: [Value] = []
        for element in self { values.append(try await body(element)) }
        return values
    }
}
