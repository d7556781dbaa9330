import ArgumentParser
import Contract
import JobQueue
import OperatorTools

/// `sluice job show`.
struct JobShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show a job's history: its worker, times, output and result.",
        discussion: "The prompt is never shown; Redis deletes it when the job ends. sluice job tail prints the answer.")

    @Argument(help: "The job's id.") var id: JobID
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        let story = try await settings.withQueue { try await $0.queue.story(of: id) }
        guard let story else { throw CommandFailure(.failed, UnknownJob.message(id)) }
        if output.json { StandardOutput.writeLine(story.json) } else { StandardOutput.write(story.text) }
    }
}

/// The error message for a job without record, events and interrupt.
enum UnknownJob {
    static func message(_ id: JobID) -> String {
        "sluice: the job \(Terminal.printable(id.rawValue)) is unknown: it was never submitted, was added to the queue directly and is not claimed yet, or ended longer ago than SLUICE_RETENTION"
    }
}
