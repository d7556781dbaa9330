import Contract
import JSONCodec
import TestSupport

/// Judges a deployment that stands still, from outside: the clients' frames, the logs, the records, the queues and the simulator's
/// requests, each against the others.
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
        var log: EventJudge
    }

    private mutating func complain(_ problem: String) { problems.append(problem) }

    /// Waits until nothing is left to be done; what does not come to rest is a problem.
    mutating func waitForRest(_ lab: Lab, deadline: Duration) async throws {
        do {
            try await until("all jobs to end", deadline: deadline, every: .milliseconds(100)) {
                let redis = try await lab.redis.connect()
                let rest = try await Self.rest(redis)
                await redis.close()
                guard rest.isEmpty else { throw WaitedInVain(description: rest.joined(separator: ", ")) }
                return true
            }
        } catch { complain("\(error)") }
        do {
            try await until("the upstream to be idle", deadline: .seconds(10), every: .milliseconds(50)) {
                try await lab.upstream().running == 0
            }
        } catch {
            figures.leftRunning = try await lab.upstream().running
            complain("\(figures.leftRunning) requests are left running upstream")
        }
    }

    /// What is still queued, pending or not ended.
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

    /// By the jobs' ids.
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

    mutating func judge(_ lab: Lab, _ stories: [RequestStory]) async throws {
        let redis = try await lab.redis.connect()
        var jobs: [String: [JobFacts]] = [:]
        for (id, record) in try await Self.records(redis) {
            let model = record["model"] ?? ""
            let facts = JobFacts(id: id, record: record, log: try await FollowedJob.log(of: id, model: model, redis))
            jobs[model, default: []].append(facts)
            judge(facts)
        }
        await redis.close()
        let upstream = Dictionary(grouping: try await lab.upstream().requests, by: \.model)
        for story in stories { judge(story, jobs[story.model] ?? [], upstream[story.model] ?? []) }
        let known = Set(stories.map(\.model))
        for (model, requests) in upstream {
            for request in requests where request.end == nil { complain("\(model) is left running upstream, of job \(request.tag)") }
            // A submission by hand whose answer was lost is nobody's story, but a job all the same.
            if !known.contains(model), jobs[model] == nil { complain("\(model) was dialled and is nobody's") }
        }
    }

    /// A job by itself: its log against its record.
    private mutating func judge(_ job: JobFacts) {
        figures.jobs += 1
        figures.attempts += job.log.attempts.count
        let terminals = job.log.types.count { ["finished", "interrupted", "failed"].contains($0) }
        figures.fewestTerminals = min(figures.fewestTerminals, terminals)
        figures.mostTerminals = max(figures.mostTerminals, terminals)
        if terminals == 0 { figures.losses += 1 }
        for problem in job.log.problems { complain(problem + " (\(job.log.types.suffix(6)), attempts \(job.log.attempts), \(job.record))") }
        guard let end = job.log.end else { return complain("job \(job.id) has no terminal event; its record is \(job.record)") }
        if end != job.record["state"] { complain("job \(job.id) ended \(end) in its log, \(job.record["state"] ?? "?") in its record") }
        switch end {
        case "finished": figures.finished += 1
        case "interrupted": figures.interrupted += 1
        default:
            figures.failed += 1
            let code = job.log.terminal?["code"]?.string ?? ""
            if !Self.mayFail(code) { complain("job \(job.id) failed with \(code): \(job.log.terminal?.text ?? "")") }
        }
    }

    /// What the upstream or the way to it does may fail a job; what happens to our own processes may not.
    private static func mayFail(_ code: String) -> Bool {
        code.hasPrefix("upstream_") || code == "idle_timeout" || code == "first_token_timeout" || code == "rate_limited"
    }

    /// A request as its client saw it, against the job behind it and what the upstream saw.
    private mutating func judge(_ story: RequestStory, _ jobs: [JobFacts], _ upstream: [SimulatorRequest]) {
        figures.reconnects += story.reconnects
        for problem in story.problems { complain(problem) }
        if jobs.count > 1 {
            figures.duplicates += jobs.count - 1
            complain("\(story.model) became \(jobs.count) jobs: \(jobs.map(\.id))")
        }
        judgeDials(story, jobs.first, upstream)
        if story.isInDoubt { return }
        if let id = story.job {
            guard jobs.first?.id == id else {
                figures.losses += 1
                return complain("job \(id) of \(story.model), accepted by hand, is lost")
            }
            if jobs[0].log.end == "interrupted", !story.askedForInterrupt { complain("job \(id) was interrupted and nobody asked for it") }
            return
        }
        guard !story.isRefused else {
            figures.refused += 1
            // What its client was told is not there must not have given anything.
            if let job = jobs.first, job.log.end != "interrupted" {
                complain("\(story.model) was refused, and yet job \(job.id) ended \(job.log.end ?? "never")")
            }
            return
        }
        guard let judge = story.judge, let end = judge.end else {
            figures.losses += 1
            return complain("\(story.model) never ended for its client; its job \(jobs.map { "\($0.id) \($0.record)" })")
        }
        figures.longestRequest = max(figures.longestRequest, (judge.endedAt ?? 0) - judge.sentAt)
        for problem in judge.problems { complain(problem + " (\(story.model))") }
        if end == .interrupted, !story.askedForInterrupt {
            complain("\(story.model) was interrupted and nobody asked: \(judge.last?.text ?? "")")
        }
        guard let job = jobs.first else { return complain("\(story.model) ended \(end) without a job: \(judge.last?.text ?? "")") }
        if let told = judge.job, told != job.id { complain("\(story.model) was told the job \(told), it is \(job.id)") }
        if end.rawValue != job.log.end {
            complain("\(story.model) ended \(end) for its client, \(job.log.end ?? "never") in its log: \(judge.last?.text ?? "")")
        }
        if end == .finished, judge.text != job.log.text { complain("\(story.model): the client's text is not the log's") }
    }

    /// An upstream that is slow to be reached (a proxy held the connection) may begin a little after the end; it must not go on.
    private static let dialSlack = 1_000_000_000
    private static let tokenSlack = 25

    private mutating func judgeDials(_ story: RequestStory, _ job: JobFacts?, _ upstream: [SimulatorRequest]) {
        if let job {
            for request in upstream where request.tag != job.id {
                complain("\(story.model) was dialled for \(request.tag), its job is \(job.id)")
            }
        }
        guard job?.log.end == "interrupted", let acknowledged = story.acknowledgedAt else { return }
        for request in upstream where request.accepted > acknowledged + Self.dialSlack && request.tokens > Self.tokenSlack {
            complain("\(story.model) was dialled \((request.accepted - acknowledged) / 1_000_000) ms after its interrupt was acknowledged")
        }
    }
}
