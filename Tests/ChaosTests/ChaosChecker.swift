import Contract
import JSONCodec
import TestSupport

/// Checks an idle deployment from outside: compares the clients' frames, the logs, the records, the queues and the simulator's requests.
struct ChaosChecker: Sendable {
    struct Figures: Sendable {
        var jobs = 0
        var finished = 0
        var interrupted = 0
        var failed = 0
        var refused = 0
        var attempts = 0
        var losses = 0
        var duplicates = 0
        var leftRunning = 0
        var fewestTerminals = Int.max
        var mostTerminals = 0
        var reconnects = 0
        var longestRequest = 0
    }

    private(set) var problems: [String] = []
    private(set) var figures = Figures()

    private struct JobFacts {
        var id: String
        var record: [String: String]
        var log: EventChecker
    }

    private mutating func addProblem(_ problem: String) { problems.append(problem) }

    /// Waits until all work is done, and records what remains as a problem.
    mutating func waitForRest(_ lab: Lab, deadline: Duration) async throws {
        do {
            try await until("all jobs to end", deadline: deadline, every: .milliseconds(100)) {
                let redis = try await lab.redis.connect()
                let rest = try await Self.rest(redis)
                await redis.close()
                guard rest.isEmpty else { throw WaitedInVain(description: rest.joined(separator: ", ")) }
                return true
            }
        } catch { addProblem("\(error)") }
        do {
            try await until("the upstream to be idle", every: .milliseconds(50)) {
                try await lab.upstream().running == 0
            }
        } catch {
            figures.leftRunning = try await lab.upstream().running
            addProblem("\(figures.leftRunning) requests are left running upstream")
        }
    }

    /// The jobs that are queued, pending or not ended.
    private static func rest(_ redis: RawRedis) async throws -> [String] {
        var rest: [String] = []
        for priority in ["interactive", "standard", "batch"] {
            let queue = "{sluice.0}:queue:\(priority)"
            let length = try await redis.send("XLEN", queue).integer ?? 0
            let pending = try await redis.send("XPENDING", queue, "workers").array?.first?.integer ?? 0
            if length + pending > 0 { rest.append("\(queue) holds \(length), \(pending) pending") }
        }
        let open = try await records(redis).filter { !["finished", "interrupted", "failed"].contains($0.value["state"] ?? "") }
        if !open.isEmpty { rest.append("\(open.count) jobs have not ended: \(open.first.map { "\($0)" } ?? "")") }
        return rest
    }

    /// All job records by id.
    static func records(_ redis: RawRedis) async throws -> [String: [String: String]] {
        var cursor = "0"
        var records: [String: [String: String]] = [:]
        repeat {
            let reply = try await redis.send("SCAN", cursor, "MATCH", "{sluice.0}:job:*", "COUNT", "1000")
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string else {
                throw RawRedisError(description: "SCAN: \(reply)")
            }
            cursor = next
            for key in parts[1].array ?? [] {
                guard let key = key.string else { continue }
                records[String(key.dropFirst("{sluice.0}:job:".count))] = try await redis.send("HGETALL", key).fields
            }
        } while cursor != "0"
        return records
    }

    mutating func check(_ lab: Lab, _ stories: [RequestStory]) async throws {
        let redis = try await lab.redis.connect()
        var jobs: [String: [JobFacts]] = [:]
        for (id, record) in try await Self.records(redis) {
            let model = record["model"] ?? ""
            let facts = JobFacts(id: id, record: record, log: try await FollowedJob.log(of: id, model: model, redis))
            jobs[model, default: []].append(facts)
            check(facts)
        }
        await redis.close()
        let upstream = Dictionary(grouping: try await lab.upstream().requests, by: \.model)
        for story in stories { check(story, jobs[story.model] ?? [], upstream[story.model] ?? []) }
        let known = Set(stories.map(\.model))
        for (model, requests) in upstream {
            for request in requests where request.end == nil { addProblem("\(model) is left running upstream, of job \(request.tag)") }
            // A submission whose reply was lost has no story, but may have a job.
            if !known.contains(model), jobs[model] == nil { addProblem("\(model) has an upstream request but no job") }
        }
    }

    /// Compares a job's log with its record.
    private mutating func check(_ job: JobFacts) {
        figures.jobs += 1
        figures.attempts += job.log.attempts.count
        let terminals = job.log.types.count { ["finished", "interrupted", "failed"].contains($0) }
        figures.fewestTerminals = min(figures.fewestTerminals, terminals)
        figures.mostTerminals = max(figures.mostTerminals, terminals)
        if terminals == 0 { figures.losses += 1 }
        for problem in job.log.problems {
            addProblem(problem + " (\(job.log.types.suffix(6)), attempts \(job.log.attempts), \(job.record))")
        }
        guard let end = job.log.end else { return addProblem("job \(job.id) has no terminal event; its record is \(job.record)") }
        if end != job.record["state"] { addProblem("job \(job.id) ended \(end) in its log, \(job.record["state"] ?? "?") in its record") }
        switch end {
        case "finished": figures.finished += 1
        case "interrupted": figures.interrupted += 1
        default:
            figures.failed += 1
            let code = job.log.terminal?["code"]?.string ?? ""
            if !Self.mayFail(code) { addProblem("job \(job.id) failed with \(code): \(job.log.terminal?.text ?? "")") }
        }
    }

    /// A fault of the upstream or its link may fail a job, a fault of our own processes must not.
    private static func mayFail(_ code: String) -> Bool {
        code.hasPrefix("upstream_") || code == "idle_timeout" || code == "first_token_timeout" || code == "rate_limited"
    }

    /// Compares a request's frames with its job and its upstream requests.
    private mutating func check(_ story: RequestStory, _ jobs: [JobFacts], _ upstream: [SimulatorRequest]) {
        figures.reconnects += story.reconnects
        for problem in story.problems { addProblem(problem) }
        if jobs.count > 1 {
            figures.duplicates += jobs.count - 1
            addProblem("\(story.model) became \(jobs.count) jobs: \(jobs.map(\.id))")
        }
        judgeDials(story, jobs.first, upstream)
        if story.isInDoubt { return }
        if let id = story.job {
            guard jobs.first?.id == id else {
                figures.losses += 1
                return addProblem("job \(id) of \(story.model), accepted by hand, is lost")
            }
            if jobs[0].log.end == "interrupted", !story.askedForInterrupt { addProblem("job \(id) was interrupted without a request") }
            return
        }
        guard !story.isRefused else {
            figures.refused += 1
            // A rejected request must not have a job.
            if let job = jobs.first, job.log.end != "interrupted" {
                let answer = story.checker?.last?.text ?? ""
                addProblem("\(story.model) was refused, and yet job \(job.id) ended \(job.log.end ?? "never"): \(answer)")
            }
            return
        }
        guard let checker = story.checker, let end = checker.end else {
            figures.losses += 1
            return addProblem("\(story.model) never ended for its client; its job \(jobs.map { "\($0.id) \($0.record)" })")
        }
        figures.longestRequest = max(figures.longestRequest, (checker.endedAt ?? 0) - checker.sentAt)
        for problem in checker.problems { addProblem(problem + " (\(story.model))") }
        if end == .interrupted, !story.askedForInterrupt {
            addProblem("\(story.model) was interrupted without a request: \(checker.last?.text ?? "")")
        }
        guard let job = jobs.first else { return addProblem("\(story.model) ended \(end) without a job: \(checker.last?.text ?? "")") }
        if let reported = checker.job, reported != job.id {
            addProblem("\(story.model) has the job \(job.id), its client received \(reported)")
        }
        if end.rawValue != job.log.end {
            addProblem("\(story.model) ended \(end) for its client, \(job.log.end ?? "never") in its log: \(checker.last?.text ?? "")")
        }
        if end == .finished, checker.text != job.log.text { addProblem("\(story.model): the client's text is not the log's") }
    }

    /// A request that was delayed on the way to the upstream may begin shortly after the end, but must not continue.
    private static let dialSlack = 1_000_000_000
    private static let tokenSlack = 25

    private mutating func judgeDials(_ story: RequestStory, _ job: JobFacts?, _ upstream: [SimulatorRequest]) {
        if let job {
            for request in upstream where request.tag != job.id {
                addProblem("\(story.model) was dialled for \(request.tag), its job is \(job.id)")
            }
        }
        guard job?.log.end == "interrupted", let acknowledged = story.acknowledgedAt else { return }
        for request in upstream where request.accepted > acknowledged + Self.dialSlack && request.tokens > Self.tokenSlack {
            addProblem(
                "\(story.model) was dialled \((request.accepted - acknowledged) / 1_000_000) ms after its interrupt was acknowledged")
        }
    }
}
