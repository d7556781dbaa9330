import Contract
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Requests from a client to the upstream and back, without faults.
    @Suite struct ChainTests {
        @Test func `a request is completed, and record and log agree`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n30-g5")
                let request = try await client.request(lab.prompt, model: model)
                let end = try await request.ended()
                #expect(end.end == .finished && end.text == SimulatorText.tokens(30))
                #expect(
                    end.last?["usage"] == [
                        "prompt_tokens": .integer(end.last?["usage"]?["prompt_tokens"]?.integer ?? -1), "completion_tokens": 30,
                        "estimated": false,
                    ])

                let job = try request.job
                let upstream = try await lab.endedRequest(model: model)
                #expect(upstream.end == .done && upstream.tokens == 30 && upstream.tag == job)
                let log = try await lab.log(job, model: model)
                #expect(log.problems.isEmpty && log.end == "finished" && log.types.prefix(2) == ["started", "upstream"])
                let record = try await lab.record(job)
                #expect(
                    record["state"] == "finished" && record["attempt"] == "1" && record["worker"] == "w1" && record["owner"] == "tenant-a")
                #expect(record["session"] == client.state.value.session && record["model"] == model && record["class"] == "interactive")
                #expect(record["reason"] == "stop" && record["gateway"]?.isEmpty == false)
                #expect(!record.values.contains { $0.contains(lab.prompt) }, "the record holds the prompt")
                let moments = ["submitted_ms", "claimed_ms", "dialled_ms", "first_token_ms", "finished_ms"]
                let times = moments.map { record[$0].flatMap { Int($0) } ?? 0 }
                #expect(times == times.sorted() && times[0] > 1_700_000_000_000, "\(times)")
                for key in ["job", "log"] {
                    let rest = try #require(try await lab.redis.command("TTL", "{sluice.0}:\(key):\(job)").integer)
                    #expect((1...600).contains(rest), "\(key) expires in \(rest) s")
                }
                for priority in ["interactive", "standard", "batch"] {
                    let length = try await lab.redis.command("XLEN", "{sluice.0}:queue:\(priority)")
                    #expect(length == .integer(0), "the queue \(priority) holds \(length)")
                }
            }
        }

        @Test func `many requests run concurrently on one socket`() async throws {
            try await withLab { lab in
                _ = try await lab.workers(2)
                let client = try await lab.client(lab.gateway())
                var requests: [ClientRequest] = []
                for _ in 0..<20 { requests.append(try await client.request(model: lab.model("sim-n250-g20"))) }
                for request in requests { #expect(try await request.ended().end == .finished) }
                #expect(client.problems.isEmpty)
                let upstream = try await lab.upstream().requests
                #expect(upstream.count == 20)
                let (lastStart, firstEnd) = (upstream.map(\.accepted).max(), upstream.compactMap(\.ended).min())
                #expect(try #require(lastStart) < #require(firstEnd), "all were running at the same time")
            }
        }

        @Test func `jobs submitted with plain Redis commands, before and after the start of the worker`() async throws {
            try await withLab { lab in
                let front = try await FrontEnd(lab.redis)
                let early = try await front.submit(model: lab.model("sim-n5-g1"))
                _ = try await lab.worker("w1")
                let live = try await front.submit(model: lab.model("sim-n50-g2"))
                for job in [early, live] {
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && end["reason"] == "stop")
                    #expect(job.received.problems.isEmpty && job.received.attempts == [1])
                    let log = try await job.log()
                    #expect(log.problems.isEmpty && log.events == job.received.events, "log and channel have the same events")
                }
                await front.close()
            }
        }

        @Test func `an invalid entry fails and is not started`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                let odd = try await front.submit(model: lab.model("sim-n5-g1"), fields: [("colour", "green")])
                let end = try await odd.ended()
                #expect(end["type"] == "failed" && end["code"] == "invalid_request")
                #expect(end["message"]?.string?.contains("colour") == true)
                for text in ["", "{", "[]", #"{"request":{}}"#] {
                    try await front.redis.send("XADD", "{sluice.0}:queue:standard", "*", "job", text)
                }
                try await front.redis.send("XADD", "{sluice.0}:queue:standard", "*", "other", "field")
                let next = try await front.submit(model: lab.model("sim-n5-g1"))
                #expect(try await next.ended()["type"] == "finished")
                try await until("the invalid entries to be removed") {
                    try await front.redis.send("XLEN", "{sluice.0}:queue:standard") == .integer(0)
                }
                #expect(try await lab.upstream().total == 1)
                await front.close()
            }
        }
    }
}
