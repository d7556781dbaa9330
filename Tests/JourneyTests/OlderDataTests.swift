import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// Redis crashes and restarts with the data of an earlier moment.
    @Suite struct OlderDataTests {
        private static func restart(_ redis: PrivateRedis) async throws {
            await redis.kill()
            try await redis.start()
        }

        private static func states(_ lab: Lab, _ jobs: [String]) async throws -> [String] {
            var states: [String] = []
            for job in jobs { states.append(try await lab.redis.command("HGET", "{sluice.0}:job:\(job)", "state").string ?? "none") }
            return states
        }

        /// The same jobs run in Redis' data and have ended for their worker, which has no free slot for a new attempt of all of them.
        @Test func `jobs whose end Redis has lost are ended again and free their slots`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_CONCURRENCY": "20"])
                let client = try await lab.client(lab.gateway())
                let models = (0..<20).map { _ in lab.model("sim-n60-g20") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(3) }
                try await lab.redis.command("SAVE")
                var jobs: [String] = []
                for request in requests {
                    #expect(try await request.ended().end == .finished)
                    jobs.append(try request.job)
                }
                try await Self.restart(lab.redis)
                try await until("all jobs to be ended again") { try await Self.states(lab, jobs).allSatisfy { $0 == "finished" } }
                let upstream = try await lab.upstream()
                for (job, model) in zip(jobs, models) {
                    let log = try await lab.log(job, model: model)
                    #expect(log.problems.isEmpty && log.end == "finished", "\(log.problems)")
                    #expect(upstream.of(model: model).count == 1, "not generated again")
                }
                try await worker.ready()
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// The interrupt keys are in Redis' older data, in which the jobs run.
        @Test func `jobs that were interrupted are interrupted again and not sent to the model again`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let models = (0..<5).map { _ in lab.model("sim-n5000-g20") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(3) }
                let front = try await FrontEnd(lab.redis)
                for request in requests { try await front.store(interrupt: request.job) }
                try await lab.redis.command("SAVE")
                await front.close()
                var jobs: [String] = []
                for request in requests {
                    try await client.send("INTERRUPT", ["interrupt_request_id": .string(request.id), "reason": "USER_STOP"])
                    #expect(try await request.ended().end == .interrupted)
                    jobs.append(try request.job)
                }
                try await Self.restart(lab.redis)
                try await until("all jobs to be interrupted again") {
                    try await Self.states(lab, jobs).allSatisfy { $0 == "interrupted" }
                }
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                let upstream = try await lab.upstream()
                for (job, model) in zip(jobs, models) {
                    #expect(upstream.of(model: model).count == 1, "sent to the model again")
                    let log = try await lab.log(job, model: model)
                    #expect(log.end == "interrupted", "\(log.problems)")
                }
            }
        }

        /// The worker that ran the jobs is gone, too, and another one takes over.
        @Test func `the jobs of a worker that dies with Redis reach an end`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_LEASE": "2s"])
                let client = try await lab.client(lab.gateway("g1", ["SLUICE_LEASE": "2s"]))
                let models = (0..<10).map { _ in lab.model("sim-n100-g20") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(5) }
                try await lab.redis.command("SAVE")
                for request in requests { try await request.tokens(30) }
                await lab.redis.kill()
                worker.expectCrash()
                await worker.kill9()
                try await lab.redis.start()
                _ = try await lab.worker("w2", ["SLUICE_LEASE": "2s"])
                for (request, model) in zip(requests, models) {
                    let end = try await request.ended()
                    #expect(end.end == .finished && end.text == SimulatorText.tokens(100), "\(end.last?.text ?? "")")
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.end == "finished", "\(log.problems)")
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// The jobs wait in Redis' older data, and no worker knows of their interrupts.
        @Test func `interrupts of waiting jobs that Redis has lost are sent again`() async throws {
            try await withLab { lab in
                let client = try await lab.client(lab.gateway())
                let models = (0..<5).map { _ in lab.model("sim-n5-g1") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                try await until("all jobs to be queued") {
                    try await lab.redis.command("XLEN", "{sluice.0}:queue:interactive").integer == 5
                }
                try await lab.redis.command("SAVE")
                let records = try await lab.redis.command("KEYS", "{sluice.0}:job:*").array?.compactMap(\.string) ?? []
                let jobs = records.map { String($0.dropFirst("{sluice.0}:job:".count)) }
                #expect(jobs.count == 5)
                for request in requests {
                    try await client.send("INTERRUPT", ["interrupt_request_id": .string(request.id), "reason": "USER_STOP"])
                    #expect(try await request.ended().end == .interrupted)
                }
                try await Self.restart(lab.redis)
                try await until("all jobs to be interrupted again") {
                    try await Self.states(lab, jobs).allSatisfy { $0 == "interrupted" }
                }
                _ = try await lab.worker("w1")
                #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                let upstream = try await lab.upstream()
                for model in models { #expect(upstream.of(model: model).isEmpty, "sent to the model although it was interrupted") }
            }
        }

        /// Redis has lost a submission, and has it again by the retry of a gateway, while the worker runs the job from the lost entry.
        @Test func `a job that runs and is queued again under another entry occupies one slot`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1", ["SLUICE_CONCURRENCY": "2"])
                let client = try await lab.client(lab.gateway())
                let model = lab.model("sim-n100000-g20")
                let request = try await client.request(model: model)
                try await request.tokens(3)
                let job = try request.job
                let queueAgain = """
                    local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
                    redis.call('XDEL', KEYS[1], entry[1])
                    redis.call('DEL', KEYS[2], KEYS[3])
                    return redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
                    """
                try await lab.redis.command(
                    "EVAL", queueAgain, "3", "{sluice.0}:queue:interactive", "{sluice.0}:job:\(job)", "{sluice.0}:log:\(job)")
                try await until("another attempt") {
                    try await lab.redis.command("HGET", "{sluice.0}:job:\(job)", "attempt").string == "2"
                }
                try await until("one upstream request") { try await lab.upstream().running == 1 }
                try await until("one slot to be taken") { try await worker.scrape()["sluice_jobs_in_flight"] == 1 }
                try await client.send("INTERRUPT", ["interrupt_request_id": .string(request.id), "reason": "USER_STOP"])
                #expect(try await request.ended().end == .interrupted)
                try await until("both slots to be free") { try await worker.scrape()["sluice_jobs_in_flight"] == 0 }
            }
        }

        @Test func `streams whose last events Redis has lost end with a complete log`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let models = (0..<20).map { _ in lab.model("sim-n150-g20") }
                var requests: [ClientRequest] = []
                for model in models { requests.append(try await client.request(model: model)) }
                for request in requests { try await request.tokens(5) }
                try await lab.redis.command("SAVE")
                for request in requests { try await request.tokens(40) }
                try await Self.restart(lab.redis)
                for (request, model) in zip(requests, models) {
                    let end = try await request.ended()
                    #expect(end.end == .finished && end.text == SimulatorText.tokens(150), "\(end.last?.text ?? "")")
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.end == "finished", "\(log.problems)")
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }
    }
}
