import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Messages lost by pub/sub are replayed from the log.
    @Suite struct ReplayTests {
        /// The test acts as the worker, so that it can write to the log without publishing.
        @Test func `a terminal event whose message was lost reaches the client`() async throws {
            try await withLab(simulator: false) { lab in
                let client = try await lab.client(lab.gateway())
                let request = try await client.request(model: "sim-n2-g1")
                let redis = try await lab.redis.connect()
                let entry: String = try await until("the job in the queue") {
                    try await redis.send("XRANGE", "{sluice.0}:queue:interactive", "-", "+").array?.first?.array?.last?.fields["job"]
                }
                let id = try #require(try JSON(parsing: entry)["id"]?.string)
                let usage = #""usage":{"prompt_tokens":1,"completion_tokens":2,"estimated":false}"#
                let events = [
                    #"{"id":"1-0","type":"started","worker":"w","attempt":1}"#, #"{"id":"1-1","type":"text","text":" w0 w1"}"#,
                    #"{"id":"1-2","type":"finished","reason":"stop",\#(usage)}"#,
                ]
                for (index, event) in events.enumerated() {
                    try await redis.send("XADD", "{sluice.0}:log:\(id)", "1-\(index)", "e", event)
                    if index < 2 { try await redis.send("PUBLISH", "{sluice.0}:out:\(id)", "[\(event)]") }
                    if index == 1 { try await request.tokens(2) }
                }
                let end = try await request.ended()
                #expect(end.end == .finished && end.text == " w0 w1" && client.problems.isEmpty)
                await redis.close()
            }
        }

        @Test func `subscriptions that are killed repeatedly lose no events`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let models = (0..<10).map { _ in lab.model("sim-n150-g10") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(5) }
                while requests.contains(where: { $0.checker.end == nil }) {
                    try await lab.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
                    try await Task.sleep(for: .milliseconds(100))
                }
                for request in requests { #expect(request.checker.end == .finished && request.text == SimulatorText.tokens(150)) }
                #expect(client.problems.isEmpty)
            }
        }

        /// The gateway loses Redis between recording the request in the session and submitting its job. Another gateway takes the session
        /// meanwhile.
        @Test func `a request reported as lost is not submitted later by its first gateway`() async throws {
            try await withLab { lab in
                let proxy = try await lab.proxy(to: lab.redis.port)
                let first = try await lab.gateway("g1", ["SLUICE_REDIS_URL": "redis://127.0.0.1:\(proxy.port)"])
                let second = try await lab.gateway("g2")
                let client = try await lab.client(first)
                let session = client.state.value.session
                // The submission's script is unknown to Redis, and the answer NOSCRIPT is held, so that the job is not submitted before the
                // proxy heals. The script that saves sessions is known again after a change of the settings.
                try await lab.redis.command("SCRIPT", "FLUSH")
                try await client.send(
                    "REQUEST",
                    [
                        "request_id": "settings", "data_type": "TEXT", "content": ["text": ""],
                        "update_session": ["system_prompt": "changed"],
                    ])
                try await until("the settings in the session") {
                    let fields = try await lab.redis.command("HGETALL", "{sluice.0}:session:\(session)").fields
                    return fields.values.contains { $0.contains("changed") }
                }
                proxy.set { $0.onText = ("r-lost", .held) }
                let request = try await client.request(model: lab.model("sim-n5-g1"), id: "r-lost")
                try await until("the request in its session") {
                    try await lab.redis.command("HGETALL", "{sluice.0}:session:\(session)").fields.keys.contains { $0.hasSuffix("r-lost") }
                }
                await client.abort()
                let back = try await lab.client(second, fields: [("resume_session_id", .string(session))])
                let end = try await back.resume(request).ended()
                // Depends on whether the gateway has already checked the request.
                #expect(["INTERNAL_ERROR", "SESSION_INVALID"].contains(end.last?["error_code"]?.string), "\(end.last?.text ?? "")")
                proxy.heal()
                try await until("the first gateway to have finished the submission") {
                    try await first.scrape().sum("sluice_jobs_submitted_total") >= 1
                }
                _ = try await lab.worker("w1")
                #expect(try await back.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                #expect(try await lab.upstream().total == 1 && back.problems.isEmpty, "\(back.problems)")
            }
        }

        @Test func `an interrupt in the durable key only is found at the renewal of the lease`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n5000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(3)
                try await front.store(interrupt: job.id, reason: "USER_STOP")
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["reason"] == "USER_STOP" && end["phase"] == "streaming")
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `an interrupt published while the worker is disconnected is carried out after its reconnect`() async throws {
            try await withLab { lab in
                let proxy = try await lab.proxy(to: lab.redis.port)
                _ = try await lab.worker("w1", ["SLUICE_REDIS_URL": "redis://127.0.0.1:\(proxy.port)", "SLUICE_LEASE": "600s"])
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n5000-g10")
                let request = try await client.request(model: model)
                try await request.tokens(3)
                // The connections are closed and new ones refused, so the message has no receiver.
                proxy.set { $0.refuses = true }
                proxy.reset()
                try await until("no worker to listen") {
                    try await lab.redis.command("PUBSUB", "NUMSUB", "{sluice.0}:cancel").array?.last?.integer == 0
                }
                #expect(try await client.interrupt(.string(request.id))["status"] == "SUCCESS")
                proxy.heal()
                // The lease is renewed every 200 s, so only the check after the new subscription can find the interrupt in time.
                let end = try await request.ended()
                #expect(end.end == .interrupted && client.problems.isEmpty)
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
            }
        }
    }
}
