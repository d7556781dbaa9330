import Contract
import JSONCodec
import TestSupport
import Testing

@Suite("Operator commands")
struct OperationTests {
    private func json(_ lab: Lab, _ arguments: String...) async throws -> JSON {
        let outcome = try await Executable.run(arguments + ["--json"], environment: ["SLUICE_REDIS_URL": lab.redis.url])
        #expect(outcome.status == .exited(0), "\(arguments): \(outcome.errors)")
        return try JSON(parsing: outcome.output)
    }

    private func run(_ lab: Lab, _ arguments: String...) async throws -> Executable.Outcome {
        try await Executable.run(arguments, environment: ["SLUICE_REDIS_URL": lab.redis.url])
    }

    @Test func `commands describe a deployment`() async throws {
        try await withLab { lab in
            let front = try await FrontEnd(lab.redis)
            let job = try await front.submit(model: lab.model("sim-n5-g1"), id: "p0-waits")
            let before = try await json(lab, "status")
            #expect(before["workers"] == [])
            #expect(before["queues"]?[1]?["class"] == "standard")
            #expect(before["queues"]?[1]?["waiting"] == 1)
            #expect(before["queues"]?[1]?["lag"] == 1)
            #expect(before["queues"]?[1]?["oldest_wait_ms"]?.integer ?? -1 >= 0)

            _ = try await lab.worker("w1")
            _ = try await job.ended()
            try await until("the queue to be empty") {
                let status = try await json(lab, "status")
                return status["queues"]?[1]?["waiting"] == 0 && status["queues"]?[1]?["running"] == 0
                    && status["workers"]?[0]?["name"] == "w1" && status["workers"]?[0]?["draining"] == false
            }

            let jobs = try await json(lab, "job", "list")
            #expect(jobs["jobs"]?.array?.count == 1)
            #expect(jobs["jobs"]?[0]?["state"] == "finished")
            #expect(try await json(lab, "job", "list", "--state", "failed")["jobs"] == [])
            let story = try await json(lab, "job", "show", "p0-waits")
            #expect(story["worker"] == "w1" && story["attempt"] == 1)
            #expect(story["events"]?.array?.map { $0["type"]?.string ?? "" } == ["started", "upstream", "text", "finished"])
            let tail = try await run(lab, "job", "tail", "p0-waits")
            #expect(tail.output == " w0 w1 w2 w3 w4")
            let unknown = try await run(lab, "job", "show", "nope")
            #expect(unknown.status == .exited(1))

            let ended = try await run(lab, "job", "interrupt", "p0-waits")
            #expect(ended.status == .exited(0) && ended.output == "p0-waits is finished already\n")
            let early = try await json(lab, "job", "interrupt", "p0-later")
            #expect(early == ["id": "p0-later", "state": "unknown", "status": "SUCCESS"])

            _ = try await json(lab, "queue", "pause", "batch")
            #expect(try await json(lab, "status")["queues"]?[2]?["paused"] == true)
            #expect(try await json(lab, "queue", "resume", "batch") == ["class": "batch", "paused": false, "changed": true])

            #expect(try await run(lab, "worker-drain", "nobody").status == .exited(1))
            await front.close()
        }
    }

    @Test func `a dead job is retried once and its letter is removed`() async throws {
        try await withLab { lab in
            let front = try await FrontEnd(lab.redis)
            let body = FrontEnd.job(id: "p0-dead", model: lab.model("sim-n3-g1"))
            for (job, code) in [(body, "worker_lost"), ("rubbish", "invalid_request")] {
                _ = try await front.redis.send("XADD", "{sluice.0}:dead", "*", "job", job, "code", code, "message", "lost", "crashes", "3")
            }
            _ = try await lab.worker("w1")
            let listed = try await json(lab, "dead", "list")
            #expect(listed.array?.count == 2)
            #expect(listed[1]?["id"] == "p0-dead" && listed[1]?["crashes"] == 3)
            let retried = try await json(lab, "job", "retry", "p0-dead")
            #expect(retried["retry_of"] == "p0-dead")
            let id = try #require(retried["id"]?.string)
            try await until("the retried job to end") { try await json(lab, "job", "show", id)["state"] == "finished" }
            #expect(try await json(lab, "job", "show", id)["retry_of"] == "p0-dead")
            let again = try await run(lab, "job", "retry", "p0-dead")
            #expect(again.status == .exited(1) && again.errors.contains("cannot be retried"))
            // A letter without a valid job cannot be retried and is kept.
            #expect(try await run(lab, "dead", "retry", "--all").status == .exited(1))
            #expect(try await json(lab, "dead", "list").array?.count == 1)
            #expect(try await json(lab, "dead", "purge", "--all") == ["purged": 1, "missing": []])
            #expect(try await run(lab, "dead", "purge", "p0-dead").status == .exited(1))
            await front.close()
        }
    }

    @Test func `a worker ends after worker-drain`() async throws {
        try await withLab { lab in
            let worker = try await lab.worker("w1")
            _ = try await json(lab, "worker-drain", "w1")
            #expect(try await worker.ended() == .exited(0))
            // The end is expected, so the lab must not report it.
            await worker.destroy()
        }
    }
}
