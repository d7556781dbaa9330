import Contract
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Silent jobs, whose leases are renewed by the index alone.
    @Suite struct QuietJobTests {
        /// Three tokens, then nothing.
        private static let silent = "sim-n50-g1-h3"

        /// Starts a silent job and waits until its lease was renewed by the index several times, for longer than a lease.
        private static func start(_ lab: Lab, _ front: FrontEnd, model: String) async throws -> FollowedJob {
            let job = try await front.submit(model: model)
            try await job.tokens(3)
            for _ in 1...4 {
                let before = try await sharedExpiry(lab)
                try await until("a renewal by the index") {
                    let now = try await sharedExpiry(lab)
                    return now != nil && now != before
                }
            }
            let record = try await lab.record(job.id)
            #expect(record["state"] == "running" && record["attempt"] == "1", "\(record)")
            return job
        }

        /// The time at which the shared lease of the only job expires; nil without one. Only renewals by the index alone make shared leases.
        private static func sharedExpiry(_ lab: Lab) async throws -> String? {
            let leases = try await lab.redis.command("ZRANGE", "{sluice.0}:leases:standard", "0", "-1", "WITHSCORES").array ?? []
            return leases.firstIndex { $0.string?.hasPrefix("=") ?? false }.flatMap { leases[$0 + 1].string }
        }

        @Test func `a silent job keeps its worker, and an interrupt in the durable key only is found`() async throws {
            try await withLab { lab in
                _ = try await lab.workers(2)
                let front = try await FrontEnd(lab.redis)
                let model = lab.model(Self.silent)
                let job = try await Self.start(lab, front, model: model)
                try await front.store(interrupt: job.id, reason: "USER_STOP")
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["reason"] == "USER_STOP" && end["phase"] == "streaming")
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                #expect(try await lab.upstream().total == 1)
                await front.close()
            }
        }

        @Test func `a silent job whose record is gone is stopped`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                let model = lab.model(Self.silent)
                let job = try await Self.start(lab, front, model: model)
                try await lab.redis.command("DEL", "{sluice.0}:job:\(job.id)")
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                await front.close()
            }
        }

        @Test func `a frozen worker stops a silent job that another one has taken over`() async throws {
            try await withLab { lab in
                let workers = try await lab.workers(2)
                let front = try await FrontEnd(lab.redis)
                let model = lab.model(Self.silent)
                let job = try await Self.start(lab, front, model: model)
                let (owner, other) = try await lab.owner(of: job.id, among: workers)
                owner.freeze()
                try await until("the other worker to take the job over") { try await lab.record(job.id)["worker"] == other.name }
                owner.thaw()
                #expect(try await lab.endedRequest(0, model: model).end == .clientClosed)
                try await front.store(interrupt: job.id, reason: "USER_STOP")
                #expect(try await job.ended()["type"] == "interrupted")
                let log = try await job.log()
                #expect(log.problems.isEmpty && log.attempts == [1, 2], "\(log.problems)")
                await front.close()
            }
        }
    }
}
