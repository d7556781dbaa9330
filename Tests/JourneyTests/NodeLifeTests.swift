import Contract
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Nodes that are drained, stopped or killed.
    @Suite struct NodeLifeTests {
        @Test func `SIGTERM drains a worker: what runs is finished, nothing new is taken`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                var jobs: [FollowedJob] = []
                for _ in 0..<10 { jobs.append(try await front.submit(model: lab.model("sim-n100-g10"))) }
                for job in jobs { try await job.tokens(2) }
                worker.terminate()
                try await until("the drain to be seen") { try await worker.get("/readyz").status == 503 }
                let late = try await front.submit(model: lab.model("sim-n3-g1"))
                for job in jobs {
                    #expect(try await job.ended()["type"] == "finished")
                    #expect(job.heard.problems.isEmpty && job.heard.attempts == [1])
                }
                #expect(try await worker.ended(within: .seconds(6)) == .exited(0))
                #expect(late.heard.types.isEmpty)
                #expect(try await lab.upstream().total == 10)
                _ = try await lab.worker("w2")
                #expect(try await late.ended()["type"] == "finished")
                await front.close()
            }
        }

        @Test func `at the drain's timeout the rest is handed back and goes on elsewhere, no crash counted`() async throws {
            try await withLab { lab in
                let first = try await lab.worker("w1", ["SLUICE_DRAIN_TIMEOUT": "300ms", "SLUICE_LEASE": "60s"])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n200-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(5)
                // With a lease of a minute, only a hand-back can bring the job over in time.
                _ = try await lab.worker("w2", ["SLUICE_LEASE": "60s"])
                first.terminate()
                #expect(try await first.ended(within: .seconds(5)) == .exited(0))
                let end = try await job.ended(deadline: .seconds(15))
                #expect(end["type"] == "finished" && job.heard.problems.isEmpty, "\(job.heard.problems)")
                #expect(job.heard.attempts == [1, 2])
                let record = try await job.record()
                #expect(record["worker"] == "w2" && record["attempt"] == "2" && (record["crashes"] ?? "0") == "0")
                let requests = try await lab.upstream().of(model: model)
                #expect(requests.map(\.end) == [.clientClosed, .done])
                await front.close()
            }
        }

        @Test func `a second SIGTERM stops at once, and the upstream is closed`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_DRAIN_TIMEOUT": "60s"])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n5000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(2)
                worker.terminate()
                try await until("the drain to be seen") { try await worker.get("/readyz").status == 503 }
                worker.terminate()
                _ = try await worker.ended(within: .seconds(3))
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `a worker that never reached Redis ends on the first SIGTERM`() async throws {
            try await withLab(redisRuns: false) { lab in
                let worker = try await lab.worker("w1", ready: false)
                try await worker.ready(path: "/healthz")
                worker.terminate()
                #expect(try await worker.ended(within: .seconds(10)) == .exited(0))
            }
        }

        @Test func `a worker whose metrics port is taken says so and ends`() async throws {
            try await withLab { lab in
                let outcome = try await Executable.run(
                    ["worker"],
                    environment: [
                        "SLUICE_REDIS_URL": lab.redis.url, "SLUICE_UPSTREAM_URL": lab.upstreamURL,
                        "SLUICE_METRICS_LISTEN": "127.0.0.1:\(lab.simulator.port)",
                    ], deadline: .seconds(10))
                #expect(outcome.status != .exited(0))
                #expect(outcome.errors.contains("\(lab.simulator.port)"), "\(outcome.errors)")
            }
        }

        @Test func `a killed worker's job goes on with another within a lease and a beat`() async throws {
            try await withLab { lab in
                let first = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n300-g10")
                let request = try await client.request(model: model)
                try await request.tokens(5)
                _ = try await lab.worker("w2")
                await first.kill9()
                let killed = ContinuousClock.now
                try await until("the second try upstream", deadline: .seconds(10)) { try await lab.upstream().of(model: model).count == 2 }
                #expect(ContinuousClock.now - killed < lease + lease / 3 + .seconds(2))
                let end = try await request.ended()
                #expect(end.end == .finished && client.problems.isEmpty, "\(client.problems)")
                let record = try await lab.record(request.job)
                #expect(record["crashes"] == "1" && record["worker"] == "w2" && record["attempt"] == "2")
                let log = try await lab.log(request.job, model: model)
                #expect(log.problems.isEmpty && log.attempts == [1, 2] && log.end == "finished", "\(log.problems)")
            }
        }

        @Test func `a gateway told to end lets what runs finish and refuses new sockets`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let request = try await client.request(model: lab.model("sim-n100-g10"))
                try await request.tokens(2)
                gateway.terminate()
                #expect(try await request.ended().end == .finished)
                #expect(try await client.closed() == 1001)
                #expect(try await gateway.ended(within: .seconds(8)) == .exited(0))
            }
        }

        @Test(arguments: [("worker", "SLUICE_UPSTREAM_URL"), ("gateway", "SLUICE_AUTH")])
        func `a node without what it needs ends with status 2 and names it`(command: String, setting: String) async throws {
            let outcome = try await Executable.run(command, environment: ["SLUICE_REDIS_URL": "redis://127.0.0.1:1"])
            #expect(outcome.status == .exited(2) && outcome.errors.contains(setting), "\(outcome)")
        }
    }
}
