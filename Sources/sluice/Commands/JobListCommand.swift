import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import OperatorTools

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
        let list = try await settings.withQueue { try await $0.queue.jobs(state: state, limit: limit) }
        if output.json {
            StandardOutput.writeLine(["jobs": .array(list.jobs.map(\.json)), "cut": .bool(list.isCut)])
            return
        }
        guard !list.jobs.isEmpty else {
            StandardOutput.write("no jobs\n")
            return
        }
        var table = TextTable(header: JobList.Item.columns)
        for job in list.jobs { table.add(job.cells) }
        StandardOutput.write(table.text)
        if list.isCut { StandardError.write("(more jobs exist; --limit sets how many are shown)\n") }
    }
}

extension JobState: ExpressibleByArgument {}
