import Contract
import Foundation
import JSONCodec
import TestSupport

/// Checks a deployment at rest by promise 8: compares the clients' frames with the records, the logs and the simulator's requests.
struct TopologyChecker: Sendable {
    struct Figures: Sendable, CustomStringConvertible {
        var requests = 0
        var finished = 0
        var interrupted = 0
        var reportedLost = 0
        var refused = 0
        var restarted = 0
        /// Jobs whose interrupt was lost with a primary after it had been acknowledged, those included to which a gateway has sent it again.
        var interruptsLost = 0
        /// Jobs whose end was lost with a primary after it had been published, and which their interrupt ended then.
        var endsLost = 0
        var longest = 0

        var description: String {
            "\(requests) requests (\(finished) finished, \(interrupted) interrupted, \(reportedLost) reported as lost, \(refused) refused), "
                + "\(interruptsLost) interrupts and \(endsLost) ends lost, \(restarted) began anew, longest \(longest / 1_000_000) ms"
        }
    }

    private let redis: any ChaosTopology
    private(set) var problems: [String] = []
    private(set) var figures = Figures()
    /// Jobs whose interrupts gateways have sent again.
    private var interruptedAgain: Set<String> = []

    init(_ redis: any ChaosTopology) { self.redis = redis }

    /// Waits until no job runs.
    mutating func waitForRest(_ lab: Lab, _ deployment: Deployment) async throws {
        let redis = redis
        do {
            try await until("all jobs to end", every: .milliseconds(200)) {
                let open = try await redis.hashes("{sluice.*}:job:*").filter {
                    JobState(rawValue: $0.value["state"] ?? "")?.isTerminal != true
                }
                if let first = open.first { throw WaitedInVain(description: "\(open.count) jobs have not ended: \(first)") }
                return true
            }
            try await until("the upstream to be idle") { try await lab.upstream().running == 0 }
            for worker in deployment.workers {
                try await until("\(worker.node.name) to have no jobs") { try await worker.node.scrape()["sluice_jobs_in_flight"] == 0 }
            }
        } catch { problems.append("\(error)") }
        try readLogs(deployment)
    }

    /// Reads in the gateways' logs which interrupts Redis had lost.
    private mutating func readLogs(_ deployment: Deployment) throws {
        for gateway in deployment.gateways {
            for line in try String(contentsOfFile: gateway.node.logPath, encoding: .utf8).split(separator: "\n")
            where line.contains("interrupt sent again") {
                if let job = line.firstMatch(of: /job=(\S+)/) { interruptedAgain.insert(String(job.1)) }
            }
        }
    }

    /// - Parameter upstream: the simulator's requests by model.
    mutating func check(_ stories: [RequestStory], _ upstream: [String: [SimulatorRequest]]) async throws {
        let jobs = Dictionary(grouping: try await redis.hashes("{sluice.*}:job:*"), by: { $0.value["model"] ?? "" })
        for story in stories where !story.isInDoubt {
            figures.requests += 1
            problems += story.problems
            let (model, found) = (story.model, jobs[story.model] ?? [])
            if found.count > 1 { problems.append("\(model) became \(found.count) jobs") }
            guard !story.isRefused else {
                figures.refused += 1
                continue
            }
            guard !story.isForgotten else {
                // The session is written before the job, so that Redis has lost both.
                figures.reportedLost += 1
                if let job = found.first { problems.append("\(model) is unknown to its session, its record is \(job.value)") }
                continue
            }
            guard let checker = story.checker, let end = checker.end else {
                problems.append("\(model) never ended for its client")
                continue
            }
            problems += checker.problems
            figures.longest = max(figures.longest, (checker.endedAt ?? 0) - checker.sentAt)
            figures.restarted += checker.restarts
            switch end {
            case .finished: figures.finished += 1
            case .interrupted:
                figures.interrupted += 1
                if !story.askedForInterrupt { problems.append("\(model) was interrupted without a request: \(checker.last?.text ?? "")") }
            case .failed:
                let detail = checker.last?["error_detail"]?.string ?? ""
                if detail == "internal" || detail == "worker_lost" {
                    figures.reportedLost += 1
                } else if !detail.hasPrefix("upstream_"), !detail.hasSuffix("_timeout"), detail != "rate_limited" {
                    problems.append("\(model) failed: \(checker.last?.text ?? "")")
                }
            }
            if let job = found.first, job.value["state"] != end.rawValue {
                if end == .interrupted, try await isInterruptLost(job.key) {
                    // No replica had it. A primary that was frozen even acknowledges interrupts before it learns of its successor.
                    figures.interruptsLost += 1
                } else if end == .finished, story.askedForInterrupt, job.value["state"] == "interrupted" {
                    // No replica had the end, and the lease expired before the worker could write it again.
                    figures.endsLost += 1
                } else {
                    problems.append("\(model) ended \(end) for its client, its record is \(job.value)")
                }
            }
            try await judgeDials(story, found.first, upstream[model] ?? [])
        }
    }

    /// Whether Redis has lost the interrupt of a job, at least for a while.
    private func isInterruptLost(_ record: String) async throws -> Bool {
        if let id = record.split(separator: ":job:").last, interruptedAgain.contains(String(id)) { return true }
        return try await !redis.exists(record.replacingOccurrences(of: ":job:", with: ":interrupt:"))
    }

    /// An interrupted job whose interrupt survived is not dialled again. A request that was on its way may begin shortly after.
    private mutating func judgeDials(
        _ story: RequestStory, _ job: (key: String, value: [String: String])?, _ upstream: [SimulatorRequest]
    ) async throws {
        guard let job, job.value["state"] == "interrupted", let acknowledged = story.acknowledgedAt else { return }
        for request in upstream where request.accepted > acknowledged + 1_000_000_000 && request.tokens > 25 {
            if try await isInterruptLost(job.key) {
                figures.interruptsLost += 1
            } else {
                problems.append("\(story.model) was dialled \((request.accepted - acknowledged) / 1_000_000) ms after its interrupt")
            }
        }
    }
}
