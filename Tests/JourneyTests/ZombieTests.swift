import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// A worker that resumes after its lease has expired.
    @Suite struct ZombieTests {
        @Test func `a worker that was frozen longer than its lease writes nothing and closes its upstream`() async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2)
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n900-g20")
                let request = try await client.request(model: model)
                try await request.tokens(10)
                let id = try #require(request.checker.job)
                let (owner, other) = try await lab.owner(of: id, among: workers)
                owner.freeze()
                try await until("the other worker to take the job over") { try await lab.record(id)["worker"] == other.name }
                owner.thaw()
                let zombie = try await lab.endedRequest(0, model: model)
                #expect(zombie.end == .clientClosed)
                let end = try await request.ended()
                #expect(end.end == .finished && end.text == SimulatorText.tokens(900) && client.problems.isEmpty, "\(client.problems)")
                let log = try await lab.log(id, model: model)
                #expect(log.problems.isEmpty && log.attempts == [1, 2] && log.end == "finished", "\(log.problems)")
                // Afterwards it works as before.
                await other.kill9()
                #expect(try await client.request(model: lab.model("sim-n5-g1")).ended().end == .finished)
            }
        }

        @Test func `a write that the log rejects ends the attempt before the next renewal of the lease`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_LEASE": "600s"])
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n5000-g10")
                let job = try await front.submit(model: model)
                try await job.tokens(3)
                // As written by another worker that has claimed the job.
                try await front.redis.send(
                    "XADD", "{sluice.0}:log:\(job.id)", "2-0", "e", #"{"id":"2-0","type":"started","worker":"w2","attempt":2}"#)
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                let log = try await job.log()
                #expect(log.attempts == [1, 2] && log.problems.isEmpty && log.types.last == "started", "\(log.problems)")
                await front.close()
            }
        }

        @Test func `a worker that was frozen before its upstream request does not send it`() async throws {
            // Long enough that the worker is frozen in its back-off, and shorter than the lease, so that the retry is due when it resumes.
            let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 6\r\ncontent-length: 2\r\n\r\n{}"
            let upstream = try await CannedUpstream.start([.init(word: "m-limited", bytes: refusal)])
            try await withLab(simulator: false) { lab in
                let workers = try await lab.workers(2, ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_RETRIES": "30"])
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: "m-limited")
                try await until("the first request") { !upstream.requests.isEmpty }
                let (owner, other) = try await lab.owner(of: job.id, among: workers)
                owner.freeze()
                try await until("the other worker to take the job over") { try await lab.record(job.id)["worker"] == other.name }
                try await front.store(interrupt: job.id)
                try await front.publish(interrupt: job.id)
                #expect(try await job.ended()["type"] == "interrupted")
                let count = upstream.requests.count
                owner.thaw()
                // It loses the job, ends it or finds it taken over when it hands it back; in each case it sends no upstream request.
                try await until("the owner to leave the job") { try await owner.scrape()["sluice_jobs_in_flight"] == 0 }
                #expect(upstream.requests.count == count && job.received.problems.isEmpty)
                #expect(try await job.log().problems.isEmpty)
                await front.close()
            }
            await upstream.close()
        }
    }
}
