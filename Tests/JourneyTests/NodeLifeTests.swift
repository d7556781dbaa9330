import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Nodes that are drained, stopped or killed.
    @Suite struct NodeLifeTests {
        @Test func `SIGTERM drains a worker: running jobs finish, and no new ones are taken`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_DRAIN_TIMEOUT": "60s"])
                let front = try await FrontEnd(lab.redis)
                var jobs: [FollowedJob] = []
                for _ in 0..<10 { jobs.append(try await front.submit(model: lab.model("sim-n100-g10"))) }
                for job in jobs { try await job.tokens(2) }
                worker.terminate()
                try await until("the drain to be seen") { try await worker.get("/readyz").status == 503 }
                let late = try await front.submit(model: lab.model("sim-n3-g1"))
                for job in jobs {
                    #expect(try await job.ended()["type"] == "finished")
                    #expect(job.received.problems.isEmpty && job.received.attempts == [1])
                }
                #expect(try await worker.ended() == .exited(0))
                #expect(late.received.types.isEmpty)
                #expect(try await lab.upstream().total == 10)
                _ = try await lab.worker("w2")
                #expect(try await late.ended()["type"] == "finished")
                await front.close()
            }
        }

        @Test func `at the drain timeout running jobs are handed back and continue elsewhere without a crash`() async throws {
            try await withLab { lab in
                let first = try await lab.worker("w1", ["SLUICE_DRAIN_TIMEOUT": "300ms", "SLUICE_LEASE": "600s"])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n200-g50")
                let job = try await front.submit(model: model)
                try await job.tokens(5)
                // With a lease of ten minutes, only a hand-back can move the job in time.
                _ = try await lab.worker("w2", ["SLUICE_LEASE": "600s"])
                first.terminate()
                #expect(try await first.ended() == .exited(0))
                let end = try await job.ended()
                #expect(end["type"] == "finished" && job.received.problems.isEmpty, "\(job.received.problems)")
                #expect(job.received.attempts == [1, 2])
                let record = try await job.record()
                #expect(record["worker"] == "w2" && record["attempt"] == "2" && (record["crashes"] ?? "0") == "0")
                let requests = try await lab.upstream().of(model: model)
                #expect(requests.map(\.end) == [.clientClosed, .done])
                await front.close()
            }
        }

        @Test func `a second SIGTERM stops the worker at once and closes the upstream`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_DRAIN_TIMEOUT": "60s"])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n5000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(2)
                worker.terminate()
                try await until("the drain to be seen") { try await worker.get("/readyz").status == 503 }
                worker.terminate()
                _ = try await worker.ended()
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `a worker that never reached Redis exits at the first SIGTERM`() async throws {
            try await withLab(redisRuns: false) { lab in
                let worker = try await lab.worker("w1", ready: false)
                try await worker.ready(path: "/healthz")
                worker.terminate()
                #expect(try await worker.ended() == .exited(0))
            }
        }

        @Test func `a worker whose metrics port is in use exits with an error`() async throws {
            try await withLab { lab in
                let outcome = try await Executable.run(
                    ["worker"],
                    environment: [
                        "SLUICE_REDIS_URL": lab.redis.url, "SLUICE_UPSTREAM_URL": lab.upstreamURL,
                        "SLUICE_METRICS_LISTEN": "127.0.0.1:\(lab.simulator.port)",
                    ])
                #expect(outcome.status != .exited(0))
                #expect(outcome.errors.contains("\(lab.simulator.port)"), "\(outcome.errors)")
            }
        }

        @Test func `a killed worker's job continues on another worker after its lease`() async throws {
            try await withLab { lab in
                let first = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n300-g50")
                let request = try await client.request(model: model)
                try await request.tokens(5)
                _ = try await lab.worker("w2")
                await first.kill9()
                try await until("the second try upstream") { try await lab.upstream().of(model: model).count == 2 }
                let end = try await request.ended()
                #expect(end.end == .finished && client.problems.isEmpty, "\(client.problems)")
                let record = try await lab.record(request.job)
                #expect(record["crashes"] == "1" && record["worker"] == "w2" && record["attempt"] == "2")
                let log = try await lab.log(request.job, model: model)
                #expect(log.problems.isEmpty && log.attempts == [1, 2] && log.end == "finished", "\(log.problems)")
            }
        }

        @Test func `a draining gateway finishes running requests and closes sockets`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", ["SLUICE_DRAIN_TIMEOUT": "60s"])
                let client = try await lab.client(gateway)
                let request = try await client.request(model: lab.model("sim-n100-g10"))
                try await request.tokens(2)
                gateway.terminate()
                #expect(try await request.ended().end == .finished)
                #expect(try await client.closed() == 1001)
                #expect(try await gateway.ended() == .exited(0))
            }
        }

        @Test(arguments: [("worker", "SLUICE_UPSTREAM_URL"), ("gateway", "SLUICE_AUTH")])
        func `a node without a required setting exits with status 2 and names it`(command: String, setting: String) async throws {
            let outcome = try await Executable.run(command, environment: ["SLUICE_REDIS_URL": "redis://127.0.0.1:1"])
            #expect(outcome.status == .exited(2) && outcome.errors.contains(setting), "\(outcome)")
        }
    }
}
