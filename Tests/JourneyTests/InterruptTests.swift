import Contract
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// An interrupt closes the upstream connection in every phase of a job.
    @Suite struct InterruptTests {
        @Test func `a streaming job: output stops, and the upstream connection is closed`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n6000-g10")
                let request = try await client.request(model: model)
                try await request.tokens(10)
                let answer = try await client.interrupt(.string(request.id), reason: "USER_NEW_INPUT")
                #expect(answer["status"] == "SUCCESS" && answer["interrupted_request_ids"] == .array([.string(request.id)]))
                #expect(
                    answer["interrupt_request_id"] == .string(request.id) && answer["results"]?[0]?["request_id"] == .string(request.id))

                let end = try await request.ended()
                #expect(end.end == .interrupted && end.last?["interrupt_reason"] == "USER_NEW_INPUT" && end.last?["phase"] == "streaming")
                let upstream = try await lab.endedRequest(model: model)
                // By itself it would have ended after a minute.
                #expect(upstream.end == .clientClosed)
                let counted = try #require(end.last?["usage"]?["completion_tokens"]?.integer)
                // The worker has read all that the client received, and at most what the upstream sent. It estimates from the bytes.
                #expect((10...upstream.tokens + 3).contains(counted) && end.last?["usage"]?["estimated"] == true)

                // Forty gaps later neither side has another token.
                let frames = request.checker.frames
                let next = try await client.request(model: lab.model("sim-n40-g10"))
                #expect(try await next.ended().end == .finished)
                #expect(try await lab.endedRequest(model: model).tokens == upstream.tokens)
                #expect(request.checker.frames == frames && client.problems.isEmpty)
                #expect(try await lab.log(request.job, model: model).end == "interrupted")
                let record = try await lab.record(request.job)
                #expect(record["state"] == "interrupted" && record["reason"] == "USER_NEW_INPUT")
            }
        }

        @Test func `a queued job ends and is never started`() async throws {
            try await withLab { lab in
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n20-g10")
                let request = try await client.request(model: model)
                try await until("the job to wait in the queue") {
                    try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive") == .integer(1)
                }
                let answer = try await client.interrupt(.string(request.id))
                #expect(answer["status"] == "SUCCESS")
                let end = try await request.ended()
                #expect(end.end == .interrupted && end.last?["phase"] == "queued" && end.text.isEmpty)
                #expect(end.last?["usage"]?["completion_tokens"] == 0)

                _ = try await lab.worker("w1")
                let next = try await client.request(model: lab.model("sim-n3-g1"))
                #expect(try await next.ended().end == .finished)
                let upstream = try await lab.upstream()
                #expect(upstream.total == 1 && upstream.of(model: model).isEmpty)
                let log = try await lab.log(request.job, model: model)
                #expect(log.types == ["interrupted"] && log.events.first?["id"] == "1-0" && log.problems.isEmpty)
            }
        }

        @Test func `the durable key, set before the submission, prevents the start`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                let id = FrontEnd.newID()
                try await front.store(interrupt: id, reason: "USER_STOP")
                let job = try await front.submit(model: lab.model("sim-n20-g10"), id: id)
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["phase"] == "queued" && end["reason"] == "USER_STOP")
                #expect(job.received.types == ["interrupted"] && job.received.problems.isEmpty)
                #expect(try await lab.upstream().total == 0)
                let rest = try #require(try await front.redis.send("TTL", "{sluice.0}:interrupt:\(id)").integer)
                #expect((1...600).contains(rest), "the key is cut to the retention: \(rest) s")
                await front.close()
            }
        }

        @Test func `one of twenty jobs on two workers: exactly one connection is closed`() async throws {
            try await withLab { lab in
                _ = try await lab.workers(2)
                let client = try await lab.client(lab.gateway())
                // The interrupted one must not end by itself on a slow machine.
                let models = (0..<20).map { lab.model($0 == 7 ? "sim-n5000-g15" : "sim-n100-g15") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(3) }
                var workers: Set<String> = []
                for request in requests { workers.insert(try await lab.record(request.job)["worker"] ?? "") }
                #expect(workers == ["w1", "w2"], "both workers run jobs")
                try await client.interrupt(.string(requests[7].id))
                for (index, request) in requests.enumerated() {
                    let end = try await request.ended()
                    #expect(end.end == (index == 7 ? .interrupted : .finished), "request \(index)")
                    if index != 7 { #expect(end.text == SimulatorText.tokens(100)) }
                }
                let upstream = try await lab.upstream()
                #expect(upstream.total == 20)
                #expect(upstream.requests.filter { $0.end == .clientClosed }.map(\.model) == [models[7]])
                #expect(upstream.requests.count { $0.end == .done } == 19)
                #expect(client.problems.isEmpty)
            }
        }

        @Test func `a PUBLISH stops a job submitted with plain Redis commands; invalid messages have no effect`() async throws {
            try await withLab { lab in
                _ = try await lab.workers(2)
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n2000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(3)
                for text in ["", "x", "[]", #"{"id":7}"#, #"{"reason":"x"}"#, String(repeating: "{", count: 5_000)] {
                    try await front.redis.send("PUBLISH", "{sluice.0}:cancel", text)
                }
                try await front.publish(interrupt: "never-was")
                let before = job.received.text.utf8.count
                try await until("more output after the invalid messages") { job.received.text.utf8.count > before }
                #expect(try await front.publish(interrupt: job.id, reason: "by-hand") == 2, "every worker is subscribed")
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["reason"] == "by-hand" && end["phase"] == "streaming")
                #expect(end["latency_us"]?.integer != nil)
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
                let log = try await job.log()
                #expect(log.problems.isEmpty && job.received.problems.isEmpty && log.events == job.received.events)

                // A second message has no effect.
                let record = try await job.record()
                #expect(record["state"] == "interrupted")
                try await front.publish(interrupt: job.id)
                let next = try await front.submit(model: lab.model("sim-n3-g1"))
                try await next.ended()
                #expect(try await job.record() == record)
                #expect(try await job.log().events == log.events)
                await front.close()
            }
        }

        @Test(arguments: [("sim-n20-g10-f60000", "waiting"), ("sim-n20-g10-h2", "streaming")])
        func `an upstream that sends nothing`(script: String, phase: String) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let model = lab.model(script)
                let request = try await client.request(model: model)
                try await lab.running(1)
                if phase == "streaming" { try await request.tokens(2) }
                // The upstream receives the request before the worker knows that it was sent.
                try await until("the worker to wait") { try await lab.record(lab.upstream().requests[0].tag)["state"] == "running" }
                try await client.interrupt(nil)
                let end = try await request.ended()
                #expect(end.end == .interrupted && end.last?["phase"]?.string == phase)
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
            }
        }

        @Test func `a job in its back-off ends and is not retried`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "30"])
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n20-g10-e500"))
                // From the fourth attempt on the back-off takes seconds.
                try await until("four tries") { try await lab.upstream().total >= 4 }
                try await front.publish(interrupt: job.id)
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && job.received.problems.isEmpty)
                let total = try await lab.upstream().total
                let next = try await front.submit(model: lab.model("sim-n100-g10"))
                try await next.ended()
                #expect(try await lab.upstream().total == total + 1, "only the next job was dialled")
                await front.close()
            }
        }

        @Test func `without an id all running requests of the session, and no others`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let (mine, other) = (try await lab.client(gateway), try await lab.client(gateway, key: lab.otherKey))
                var requests: [ClientRequest] = []
                for _ in 0..<3 { requests.append(try await mine.request(model: lab.model("sim-n2000-g10"))) }
                let foreign = try await other.request(model: lab.model("sim-n60-g10"))
                for request in requests + [foreign] { try await request.tokens(2) }

                // A request of another session is unknown.
                for id in [foreign.id, "never-was"] {
                    let answer = try await mine.interrupt(.string(id))
                    #expect(answer["status"] == "FAILED" && answer["interrupted_request_ids"] == [])
                }
                let partial = try await mine.interrupt([.string(requests[0].id), "never-was"])
                #expect(partial["status"] == "PARTIAL" && partial["interrupted_request_ids"] == .array([.string(requests[0].id)]))
                #expect(try await requests[0].ended().end == .interrupted)
                let all = try await mine.interrupt(.null)
                let ids = Set((all["interrupted_request_ids"]?.array ?? []).compactMap(\.string))
                #expect(all["status"] == "SUCCESS" && ids == Set(requests[1...].map(\.id)))
                for request in requests { #expect(try await request.ended().end == .interrupted) }
                let late = try await mine.interrupt(nil)
                #expect(late["status"] == "FAILED" && late["interrupted_request_ids"] == [])
                #expect(try await foreign.ended().end == .finished)
            }
        }

        @Test func `close to the end of a job there is exactly one end`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                var random = SplitMix64(seed: 11)
                var ends: [RequestChecker.End: Int] = [:]
                for _ in 0..<40 {
                    let model = lab.model("sim-n6-g5")
                    let request = try await client.request(model: model)
                    try await request.tokens(1)
                    try await Task.sleep(for: .microseconds(Int.random(in: 15_000...32_000, using: &random)))
                    let answer = try await client.interrupt(.string(request.id))
                    let end = try await request.ended()
                    if answer["status"] == "FAILED" { #expect(end.end == .finished) }
                    ends[try #require(end.end), default: 0] += 1
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.end == end.end?.rawValue)
                }
                #expect(client.problems.isEmpty && ends[.failed] == nil, "\(ends)")
            }
        }
    }
}
