import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import Observability
import RedisClient
import Support

/// `sluice job list`.
struct JobListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List jobs that have a record, newest first.",
        discussion:
            "A record expires SLUICE_RETENTION after the job's end. A job that was added to the queue directly has no record until a worker claims it."
    )

    @Option(name: .long, help: "Only jobs in this state: queued, running, finished, interrupted or failed.") var state: JobState?
    @Option(name: .long, help: "Maximum number of jobs.") var limit = 50
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard (1...10_000).contains(limit) else { throw ValidationError("--limit may be 1 to 10000.") }
    }

    func run() async throws {
        let (jobs, isCut) = try await Deployment.with(settings) { try await Self.read($0, state: state, limit: limit) }
        if output.json {
            StandardOutput.writeLine(["jobs": .array(jobs.map { $0.json }), "cut": .bool(isCut)])
            return
        }
        guard !jobs.isEmpty else {
            StandardOutput.write("no jobs\n")
            return
        }
        var table = TextTable(header: ["JOB", "STATE", "CLASS", "MODEL", "ATTEMPT", "WORKER", "SUBMITTED", "TOOK", "CODE"])
        for job in jobs { table.add(job.cells) }
        StandardOutput.write(table.text)
        if isCut { StandardError.write("(more jobs exist; --limit sets how many are shown)\n") }
    }

    /// One listed job.
    struct Listed: Sendable {
        let id: String
        let record: JobRecord

        var json: JSON { JobStory.json(id: id, record: record) }
        var submitted: Int { record.count("submitted_ms") ?? 0 }

        var cells: [String] {
            let end = record.count("finished_ms") ?? Int(Timestamp.now.milliseconds)
            return [
                id, record.fields["state"] ?? "-", record.fields["class"] ?? "-", record.fields["model"] ?? "-",
                record.fields["attempt"] ?? "-",
                record.fields["worker"] ?? "-", submitted == 0 ? "-" : Timestamp(milliseconds: Int64(submitted)).description,
                submitted == 0 ? "-" : Quantity.span(milliseconds: max(0, end.saturatingSubtracting(submitted))),
                record.fields["code"] ?? record.fields["reason"] ?? "-",
            ]
        }
    }

    /// Reads the records of all partitions, newest first.
    /// - Returns: the jobs, and whether more may exist.
    private static func read(_ deployment: Deployment, state: JobState?, limit: Int) async throws(RedisError) -> ([Listed], Bool) {
        var jobs: [Listed] = []
        var isCut = false
        for partition in 0..<deployment.keys.partitions {
            // With a state filter, the number of keys to read is unknown in advance.
            let prefix = deployment.keys.recordPrefix(partition: partition)
            let (keys, more) = try await deployment.keys(matching: prefix + "*", limit: state == nil ? max(limit, 10_000) : 100_000)
            isCut = isCut || more
            for start in stride(from: 0, to: keys.count, by: 500) {
                let page = keys[start..<min(start + 500, keys.count)]
                var pipeline = RedisPipeline()
                for key in page { pipeline.append("HGETALL", .string(key)) }
                for (key, reply) in zip(page, try await deployment.redis.send(pipeline)) {
                    var fields = reply.fields
                    // Internal fields of the nodes.
                    fields["token"] = nil
                    fields["entry"] = nil
                    let record = JobRecord(fields: fields)
                    guard let found = record.state, state == nil || found == state else { continue }
                    jobs.append(Listed(id: String(key.dropFirst(prefix.count)), record: record))
                }
            }
        }
        jobs.sort { ($0.submitted, $0.id) > ($1.submitted, $1.id) }
        return (Array(jobs.prefix(limit)), isCut || jobs.count > limit)
    }
}

extension JobState: ExpressibleByArgument {}

extension Keys {
    /// The key of a record without the job's id.
    func recordPrefix(partition: Int) -> String { queue(.standard, partition: partition).replacing("queue:standard", with: "job:") }
}
