import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Any node can be killed and restarted at any time, and the remains of crashed nodes are removed.
    @Suite struct CrashOnlyStartTests {
        @Test func `nodes started before Redis wait for it`() async throws {
            try await withLab(redisRuns: false) { lab in
                let worker = try await lab.worker("w1", ready: false)
                let gateway = try await lab.gateway("g1", ready: false)
                for node in [worker, gateway] {
                    try await node.ready(path: "/healthz")
                    let answer = try await node.get("/readyz")
                    #expect(answer.status == 503 && !answer.body.isEmpty, "\(node.name): \(answer)")
                    try await until("\(node.name) to log the problem") {
                        node.log.split(separator: "\n").contains { line in
                            line.contains(" warning ") && line.contains("redis") && line.contains(":\(lab.redis.port)")
                        }
                    }
                }
                try await lab.redis.start()
                for node in [worker, gateway] { try await node.ready() }
                let client = try await lab.client(gateway)
                #expect(try await client.request(model: lab.model("sim-n5-g1")).ended().end == .finished)

                // Again, with connections that are lost.
                await lab.redis.kill()
                for node in [worker, gateway] {
                    try await until("\(node.name) to be red") { try await node.get("/readyz").status == 503 }
                }
                try await lab.redis.start()
                for node in [worker, gateway] { try await node.ready() }
                let again = try await lab.client(gateway)
                #expect(try await again.request(model: lab.model("sim-n5-g1")).ended().end == .finished)
                let lines = worker.log.split(separator: "\n").count { $0.contains("error") || $0.contains("warning") }
                #expect(lines < 40, "each problem is logged once: \(lines) lines")
            }
        }

        @Test func `the consumer of a crashed worker is removed when nothing is pending for it`() async throws {
            try await withLab { lab in
                // Consumers are swept once in two lease times.
                let workers = try await lab.workers(2, ["SLUICE_LEASE": "4s"])
                let front = try await FrontEnd(lab.redis)
                // It runs until it is interrupted.
                let job = try await front.submit(model: lab.model("sim-n1000000-g15"))
                try await job.tokens(2)
                let (owner, other) = try await lab.owner(of: job.id, among: workers)
                await owner.kill9()
                try await until("the other worker to run the job") { try await lab.record(job.id)["worker"] == other.name }
                try await until("the dead worker's consumer to be swept") {
                    var names: Set<String> = []
                    for priority in ["interactive", "standard", "batch"] {
                        let reply = try await front.redis.send("XINFO", "CONSUMERS", "{sluice.0}:queue:\(priority)", "workers")
                        names.formUnion((reply.array ?? []).compactMap { $0.fields["name"] })
                    }
                    return !names.contains(owner.name) && names.contains(other.name)
                }
                _ = try await front.publish(interrupt: job.id)
                #expect(try await job.ended()["type"] == "interrupted")
                // It may restart under its name at any time.
                try owner.start()
                try await owner.ready()
                await other.kill9()
                #expect(try await front.submit(model: lab.model("sim-n5-g1")).ended()["type"] == "finished")
                await front.close()
            }
        }

        @Test func `chat completions of a crashed gateway are interrupted by another one or after its restart; jobs continue`()
            async throws
        {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let fields: [String: String?] = ["SLUICE_LEASE": "6s", "SLUICE_GRACE": "1s"]
                let first = try await lab.gateway("g1", fields.merging(["SLUICE_GATEWAY_NAME": "g1"]) { $1 })
                let other = try await lab.gateway("g2", fields)
                let key = ["authorization": "Bearer \(lab.key)"]
                /// Starts a chat completion, whose client gets no answer when the gateway crashes.
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
                // Now without another gateway.
                other.terminate()
                _ = try await other.ended()
                try first.start()
                try await first.ready()
                let again = try await complete()
                await first.kill9()
                try first.start()
                #expect(try await lab.endedRequest(0, model: again.model).end == .clientClosed)
                // Ended completions are not recorded.
                let body: JSON = ["model": .string(lab.model("sim-n3-g1")), "messages": [["role": "user", "content": "hi"]]]
                try await first.ready()
                #expect(try await HTTPCall.post(first.port, "/v1/chat/completions", body, headers: key).status == 200)
                try await until("no completion to be kept") { try await lab.redis.command("EXISTS", "{sluice.0}:requests:g1").integer == 0 }
                #expect(try await lab.upstream().of(model: detached).map(\.end) == [nil])
                let answer = try await HTTPCall.post(first.port, "/v1/jobs/\(detachedID)/interrupt", [:], headers: key)
                #expect(answer.json?["status"] == "SUCCESS")
            }
        }
    }
}
