import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// Nodes that come before Redis, are drained, stopped or killed.
    @Suite struct NodeLifeTests {
        @Test func `nodes started before Redis say so, wait and get ready with it`() async throws {
            try await withLab(redisRuns: false) { lab in
                let worker = try await lab.worker("w1", ready: false)
                let gateway = try await lab.gateway("g1", ready: false)
                for node in [worker, gateway] {
                    try await node.ready(path: "/healthz")
                    let answer = try await node.get("/readyz")
                    #expect(answer.status == 503 && !answer.body.isEmpty, "\(node.name): \(answer)")
                    try await until("\(node.name) to name the trouble in its log") {
                        node.log.split(separator: "\n").contains { line in
                            line.contains(" warning ") && line.contains("redis") && line.contains(":\(lab.redis.port)")
                        }
                    }
                }
                try await lab.redis.start()
                for node in [worker, gateway] { try await node.ready(deadline: .seconds(10)) }
                let client = try await lab.client(gateway)
                #expect(try await client.request(model: lab.model("sim-n5-g1")).ended().end == .finished)

                // And once more, with connections that break.
                await lab.redis.kill()
                for node in [worker, gateway] {
                    try await until("\(node.name) to be red", deadline: .seconds(10)) { try await node.get("/readyz").status == 503 }
                }
                try await lab.redis.start()
                for node in [worker, gateway] { try await node.ready(deadline: .seconds(10)) }
                let again = try await lab.client(gateway)
                #expect(try await again.request(model: lab.model("sim-n5-g1")).ended().end == .finished)
                let lines = worker.log.split(separator: "\n").count { $0.contains("error") || $0.contains("warning") }
                #expect(lines < 40, "the log says once what happened: \(lines) lines")
            }
        }

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

        @Test func `a killed gateway's chat completions are interrupted by another one, or by itself when it is back; jobs run on`()
            async throws
        {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let fields: [String: String?] = ["SLUICE_LEASE": "1s", "SLUICE_GRACE": "1s"]
                let first = try await lab.gateway("g1", fields.merging(["SLUICE_GATEWAY_NAME": "g1"]) { $1 })
                let other = try await lab.gateway("g2", fields)
                let key = ["authorization": "Bearer \(lab.key)"]
                /// The job of a completion that runs; whoever asked for it is told nothing when its gateway dies.
                func complete() async throws -> (model: String, id: String) {
                    let model = lab.model("sim-n5000-g10")
                    let body: JSON = ["model": .string(model), "stream": true, "messages": [["role": "user", "content": "hi"]]]
                    let port = first.port
                    Task { try await HTTPCall.post(port, "/v1/chat/completions", body, headers: key) }
                    let id = try await until("the completion to run") { try await lab.upstream().of(model: model).first?.tag }
                    return (model, id)
                }
                let detached = lab.model("sim-n5000-g10")
                let request: JSON = ["model": .string(detached), "messages": [["role": "user", "content": "hi"]]]
                let job = try await HTTPCall.post(first.port, "/v1/jobs", ["request": request], headers: key)
                let detachedID = try #require(job.json?["id"]?.string)
                let lost = try await complete()
                await first.kill9()
                #expect(try await lab.endedRequest(0, model: lost.model).end == .clientClosed)
                let record = try await lab.record(lost.id)
                #expect(record["state"] == "interrupted" && record["reason"] == "CLIENT_GONE")
                // And now there is none but itself.
                other.terminate()
                _ = try await other.ended(within: .seconds(10))
                try first.start()
                try await first.ready()
                let again = try await complete()
                await first.kill9()
                try first.start()
                #expect(try await lab.endedRequest(0, model: again.model).end == .clientClosed)
                // What ended by itself is not kept.
                let body: JSON = ["model": .string(lab.model("sim-n3-g1")), "messages": [["role": "user", "content": "hi"]]]
                try await first.ready()
                #expect(try await HTTPCall.post(first.port, "/v1/chat/completions", body, headers: key).status == 200)
                try await until("no completion to be kept") { try await lab.redis.command("EXISTS", "{sluice.0}:requests:g1").integer == 0 }
                #expect(try await lab.upstream().of(model: detached).map(\.end) == [nil])
                let answer = try await HTTPCall.post(first.port, "/v1/jobs/\(detachedID)/interrupt", [:], headers: key)
                #expect(answer.json?["status"] == "SUCCESS")
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
