import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Redis crashes, loses its data, or has no memory.
    @Suite struct RedisAwayTests {
        @Test func `streams continue after a crash and restart of Redis`() async throws {
            try await withLab(redis: PrivateRedis.Options(appendOnly: true)) { lab in
                _ = try await lab.workers(2)
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let models = (0..<20).map { _ in lab.model("sim-n200-g20") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(5) }
                await lab.redis.kill()
                try await until("the gateway to be red") { try await gateway.get("/readyz").status == 503 }
                // A request that Redis has not accepted is answered with an error.
                let refused = try await client.request(model: lab.model("sim-n3-g1"))
                #expect(try await refused.ended().last?["error_code"] == "SERVER_BUSY")
                try await lab.redis.start()
                for (request, model) in zip(requests, models) {
                    let end = try await request.ended()
                    #expect(end.end == .finished && end.text == SimulatorText.tokens(200), "\(end.last?.text ?? "")")
                    let log = try await lab.log(#require(end.job), model: model)
                    #expect(log.problems.isEmpty && log.end == "finished", "\(log.problems)")
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
                try await gateway.ready()
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
            }
        }

        @Test func `an ended request that is resumed while Redis is away is replayed when Redis is back`() async throws {
            try await withLab(redis: PrivateRedis.Options(appendOnly: true)) { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let request = try await client.request(model: lab.model("sim-n3-g1"))
                #expect(try await request.ended().end == .finished)
                await lab.redis.kill()
                try await until("the gateway to be red") { try await gateway.get("/readyz").status == 503 }
                let resumed = try await client.resume(request)
                // Answered after RESUME was handled.
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().last?["error_code"] == "SERVER_BUSY")
                try await lab.redis.start()
                let end = try await resumed.ended()
                #expect(end.end == .finished && end.text == SimulatorText.tokens(3), "\(end.last?.text ?? "")")
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// A fail-over may lose the end of a job that its client has seen. The worker writes it again.
        @Test func `an ended request that is resumed while Redis lacks its end is replayed when Redis has it again`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let request = try await client.request(model: lab.model("sim-n3-g1"))
                #expect(try await request.ended().end == .finished)
                let (record, log) = ("{sluice.0}:job:\(try request.job)", "{sluice.0}:log:\(try request.job)")
                let events = try await lab.redis.command("XREVRANGE", log, "+", "-", "COUNT", "2").array ?? []
                let (end, before) = (try #require(events.first?.array), try #require(events.last?.array?.first?.string))
                try await lab.redis.command("HSET", record, "state", "running")
                try await lab.redis.command("XDEL", log, #require(end[0].string))
                try await lab.redis.command("XSETID", log, before)
                let resumed = try await client.resume(request)
                // Answered after RESUME was handled.
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                try await lab.redis.command("XADD", log, #require(end[0].string), "e", #require(end[1].array?.last?.string))
                try await lab.redis.command("HSET", record, "state", "finished")
                let replayed = try await resumed.ended()
                #expect(replayed.end == .finished && replayed.text == SimulatorText.tokens(3), "\(replayed.last?.text ?? "")")
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// As after a fail-over to a replica that lacks both. The gateway submits again, on a session that it has written again.
        @Test func `a request whose submission and session are lost runs`() async throws {
            try await withLab { lab in
                let proxy = try await lab.proxy(to: lab.redis.port)
                let gateway = try await lab.gateway("g1", ["SLUICE_REDIS_URL": "redis://127.0.0.1:\(proxy.port)"])
                let client = try await lab.client(gateway)
                let model = lab.model("sim-n3-g1")
                proxy.set { $0.onText = (model, .lost) }
                let request = try await client.request(model: model)
                try await until("its job") { try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 1 }
                try await lab.redis.command("FLUSHALL")
                _ = try await lab.worker("w1")
                proxy.set { $0.refuses = true }
                proxy.reset()
                proxy.heal()
                let end = try await request.ended()
                #expect(end.end == .finished && end.text == SimulatorText.tokens(3), "\(end.last?.text ?? "")")
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// See `Generation.settled`: the newest event in the log is the terminal event of this worker.
        @Test func `a terminal event whose reply was lost ends the job`() async throws {
            try await withLab { lab in
                let proxy = try await lab.proxy(to: lab.redis.port)
                let worker = try await lab.worker("w1", ["SLUICE_REDIS_URL": "redis://127.0.0.1:\(proxy.port)"])
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n20-g10"))
                try await job.tokens(3)
                proxy.set { $0.onText = (#""type":"finished""#, .lost) }
                #expect(try await job.ended()["type"] == "finished")
                proxy.set { $0.refuses = true }
                proxy.reset()
                proxy.heal()
                try await until("the worker to know the end of its job") {
                    worker.log.contains("job ended") || worker.log.contains("job lost")
                }
                #expect(!worker.log.contains("job lost"), "\(worker.log.suffix(2_000))")
                #expect(try await worker.scrape()["sluice_leases_lost_total"] == 0)
                #expect(try await front.submit(model: lab.model("sim-n3-g1")).ended()["type"] == "finished")
                await front.close()
            }
        }

        @Test func `FLUSHALL: running and waiting jobs fail, and new jobs run`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_CONCURRENCY": "2"])
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                var requests: [ClientRequest] = []
                for _ in 0..<2 { requests.append(try await client.request(model: lab.model("sim-n5000-g10"))) }
                for request in requests { try await request.tokens(5) }
                // The third waits for a free slot.
                requests.append(try await client.request(model: lab.model("sim-n5000-g10")))
                try await until("three jobs in the queue") {
                    try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 3
                }
                try await lab.redis.command("FLUSHALL")
                try await until("the upstream to be closed") { try await lab.upstream().running == 0 }
                for request in requests {
                    let end = try await request.ended()
                    #expect(
                        end.end == .failed && end.last?["error_code"] == "INTERNAL_ERROR" && end.last?["retryable"] == true,
                        "\(end.last?.text ?? "")")
                }
                #expect(try await client.request(model: lab.model("sim-n5-g1")).ended().end == .finished)
                for node in [worker, gateway] { try await node.ready() }
                for (index, request) in requests.enumerated() {
                    for key in ["job", "log"] {
                        let expiry = try await lab.redis.command("TTL", "{sluice.0}:\(key):\(request.checker.job ?? "-")")
                        #expect(expiry.integer != -1, "\(key) of request \(index) never expires")
                    }
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        @Test func `a subscriber that Redis disconnects because it reads too slowly loses no events`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let model = lab.model("sim-n150-g10")
                let request = try await client.request(model: model)
                try await request.tokens(5)
                try await lab.redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
                let channel = "{sluice.0}:out:\(try request.job)"
                gateway.freeze()
                // Also more than the socket buffers hold.
                let payload = String(repeating: "x", count: 8 << 20)
                try await until("the gateway to be disconnected") {
                    try await lab.redis.command("PUBLISH", channel, payload)
                    return try await lab.redis.command("PUBSUB", "NUMSUB", channel).array?.last?.integer == 0
                }
                gateway.thaw()
                let end = try await request.ended()
                #expect(end.end == .finished && end.text == SimulatorText.tokens(150) && client.problems.isEmpty, "\(client.problems)")
                func lines() -> [Substring] {
                    gateway.log.split(separator: "\n").filter { $0.contains(" redis connection ") && $0.contains("=events") }
                }
                // The request may end before the subscription is restored.
                try await until("both lines") { lines().count >= 2 }
                #expect(lines().count == 2, "lost once, restored once: \(lines())")
            }
        }

        @Test func `Redis answers no command for longer than a lease: streams are completed`() async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2, ["SLUICE_LEASE": "3s"])
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                let models = (0..<10).map { _ in lab.model("sim-n200-g10") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(5) }
                try await lab.redis.command("CLIENT", "PAUSE", "4000", "ALL")
                for (request, model) in zip(requests, models) {
                    let end = try await request.ended()
                    #expect(end.end == .finished && end.text == SimulatorText.tokens(200), "\(end.last?.text ?? "")")
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.end == "finished", "\(log.problems)")
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
                for node in workers + [gateway] { try await node.ready() }
            }
        }

        @Test func `Redis out of memory: requests fail, interrupts work, and jobs run when memory is available again`()
            async throws
        {
            try await withLab { lab in
                let nodes = [try await lab.gateway(), try await lab.worker("w1", ["SLUICE_CONCURRENCY": "2"])]
                let client = try await lab.client(nodes[0])
                let (model, stopped) = (lab.model("sim-n400-g10"), lab.model("sim-n5000-g10"))
                let request = try await client.request(model: model)
                let other = try await client.request(model: stopped)
                for request in [request, other] { try await request.tokens(5) }
                // One is delivered to a worker and not yet claimed.
                let second = try await lab.worker("w2")
                second.freeze()
                let waiting = try await client.request(model: lab.model("sim-n5-g1"))
                try await until("the third in the queue") {
                    try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 3
                }
                // Less than an empty Redis needs.
                try await lab.redis.command("CONFIG", "SET", "maxmemory", "1mb")
                second.thaw()
                let third = try await lab.worker("w3", ready: false)
                let refused = try await client.request(model: lab.model("sim-n3-g1"))
                let answer = try await refused.ended()
                #expect(
                    answer.end == .failed && answer.last?["error_code"] == "SERVER_BUSY" && answer.last?["retryable"] == true,
                    "\(answer.last?.text ?? "")")
                for node in nodes {
                    try await until("\(node.name) to be red") { try await node.get("/readyz").body.contains("Redis rejects writes (OOM)") }
                }
                // Nothing can be stored, but the worker receives the message.
                try await client.send("INTERRUPT", ["interrupt_request_id": .string(other.id), "reason": "USER_STOP"])
                #expect(try await lab.endedRequest(0, model: stopped).end == .clientClosed)
                try await until("the third worker to wait") { third.log.contains("consumer group creation rejected by Redis") }
                // Longer than a lease. Leases are renewed without memory, too.
                try await Task.sleep(for: Lab.lease + .seconds(1))
                try await lab.redis.command("CONFIG", "SET", "maxmemory", "0")
                for node in nodes { try await node.ready() }
                #expect(try await other.ended().end == .interrupted)
                let end = try await request.ended()
                #expect(end.end == .finished && end.restarts == 0, "\(end.last?.text ?? "")")
                let log = try await lab.log(#require(end.job), model: model)
                #expect(log.problems.isEmpty && log.attempts == [1], "\(log.problems)")
                #expect(try await waiting.ended().end == .finished)
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                #expect(client.problems.isEmpty, "\(client.problems)")
                // Logged once at the beginning and once at the end.
                func count(_ node: Node, _ message: String) -> Int { node.log.components(separatedBy: message).count - 1 }
                try await until("the third worker to take jobs") { third.log.contains("worker ready") }
                #expect(count(third, "consumer group creation rejected by Redis") == 1 && count(third, "consumer groups created") == 1)
                // It may have been resumed too late to receive an entry.
                guard count(second, "job claim rejected by Redis") > 0 else { return }
                try await until("the second worker to claim") {
                    _ = try await client.request(model: lab.model("sim-n3-g1")).ended()
                    return count(second, "job claim accepted by Redis again") > 0
                }
                #expect(count(second, "job claim rejected by Redis") == 1 && count(second, "job claim accepted by Redis again") == 1)
            }
        }
    }
}
