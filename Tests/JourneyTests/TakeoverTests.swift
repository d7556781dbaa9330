import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Jobs of a crashed worker.
    @Suite struct TakeoverTests {
        @Test func `continue resumes at the end of the logged text`() async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2, ["SLUICE_UPSTREAM_PREFIX": "partial"])
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n300-g15")
                let request = try await client.request(model: model)
                try await request.tokens(20)
                let id = try #require(request.checker.job)
                let (owner, _) = try await lab.owner(of: id, among: workers)
                await owner.kill9()
                let end = try await request.ended()
                #expect(end.end == .finished && end.restarts == 0 && end.text == SimulatorText.tokens(300) && client.problems.isEmpty)
                let log = try await lab.log(id, model: model)
                // The checker compares `text_offset` with the logged bytes.
                #expect(log.problems.isEmpty && log.types.contains("resumed") && !log.types.contains("restarted"), "\(log.problems)")
                // The second request generated only the missing tokens.
                let requests = try await lab.upstream().of(model: model).sorted { $0.accepted < $1.accepted }
                #expect(requests.map(\.end) == [.clientClosed, .done] && requests[1].tokens < 300 - 15, "\(requests)")
                // The sum includes the usage of the first attempt.
                let cost = try #require(end.last?["usage"]?["completion_tokens"]?.integer)
                #expect(cost >= 295 && end.last?["usage"]?["estimated"] == true, "\(end.last?.text ?? "")")
            }
        }

        @Test(arguments: [(policy: "restart", prefix: "partial"), (policy: "continue", prefix: "none")])
        func `restart, and an upstream without continuation, start again`(policy: String, prefix: String) async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2, ["SLUICE_UPSTREAM_PREFIX": prefix])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n150-g15")
                let job = try await front.submit(model: model, fields: [("on_crash", .string(policy))])
                try await job.tokens(20)
                try await lab.owner(of: job.id, among: workers).0.kill9()
                #expect(try await job.ended()["type"] == "finished")
                #expect(job.received.problems.isEmpty && job.received.attempts == [1, 2], "\(job.received.problems)")
                let log = try await job.log()
                #expect(log.problems.isEmpty && log.types.contains("restarted") && !log.types.contains("resumed"))
                #expect(try await lab.endedRequest(1, model: model).tokens == 150)
                await front.close()
            }
        }

        @Test func `fail ends the job as worker_lost and writes a dead letter, which can be retried`() async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2)
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n2000-g15")
                let job = try await front.submit(model: model, fields: [("on_crash", "fail")])
                try await job.tokens(5)
                try await lab.owner(of: job.id, among: workers).0.kill9()
                let end = try await job.ended()
                #expect(end["type"] == "failed" && end["code"] == "worker_lost" && end["id"] == "2-0", "\(end.text)")
                #expect(try await job.record()["crashes"] == "1")
                let letters = try await front.redis.send("XRANGE", "{sluice.0}:dead", "-", "+").array ?? []
                let letter = try #require(letters.first?.array?.last?.fields)
                #expect(letters.count == 1 && letter["code"] == "worker_lost" && letter["crashes"] == "1")
                #expect(try JSON(parsing: letter["job"] ?? "")["id"] == .string(job.id))
                #expect(letter["message"]?.contains("lost") == true)
                #expect(try await lab.upstream().of(model: model).count == 1, "it was not dialled again")
                let retried = try await Executable.run(["job", "retry", job.id], environment: ["SLUICE_REDIS_URL": lab.redis.url])
                #expect(retried.status == .exited(0), "\(retried)")
                #expect(try await front.redis.send("XLEN", "{sluice.0}:dead").integer == 0)
                try await until("the retried job to be dialled") { try await lab.upstream().of(model: model).count == 2 }
                let again = try #require(try await lab.upstream().of(model: model).first { $0.tag != job.id })
                #expect(try await lab.record(again.tag)["retry_of"] == job.id)
                try await front.publish(interrupt: again.tag)
                #expect(try await lab.endedRequest(1, model: model).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `a worker continues with what an earlier process of its name had received in any of many partitions`() async throws {
            try await withLab { lab in
                let id = "p13-\(ULID(milliseconds: 1))"
                let queue = "{sluice.13}:queue:standard"
                try await lab.redis.command("XGROUP", "CREATE", queue, "workers", "0", "MKSTREAM")
                try await lab.redis.command("XADD", queue, "*", "job", FrontEnd.job(id: id, model: lab.model("sim-n5-g1")))
                // The earlier process received the entry and ended before it claimed the job.
                try await lab.redis.command("XREADGROUP", "GROUP", "workers", "w1", "COUNT", "1", "STREAMS", queue, ">")
                // No walk of the pending lists finds the entry within the test.
                _ = try await lab.worker("w1", ["SLUICE_PARTITIONS": "16", "SLUICE_LEASE": "3600s"])
                try await until("the end of the job") {
                    try await lab.redis.command("HGET", "{sluice.13}:job:\(id)", "state").string == "finished"
                }
            }
        }
    }
}
