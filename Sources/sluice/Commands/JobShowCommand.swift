import ArgumentParser
import Contract
import JobQueue

struct JobShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Tell a job's whole story: who took it, when, what it produced, how it ended.",
        discussion: "Never shows the prompt: Redis does not hold it once the job is claimed and done. sluice job tail prints the answer.")

    @Argument(help: "The job's id.") var id: JobID
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        let story = try await Deployment.with(settings) { try await $0.queue.story(of: id) }
        guard let story else { throw CommandFailure(.failed, UnknownJob.message(id)) }
        if output.json { StandardOutput.writeLine(story.json) } else { StandardOutput.write(story.text) }
    }
}

enum UnknownJob {
    static func message(_ id: JobID) -> String {
        "sluice: nothing is known of \(Terminal.printable(id.rawValue)): it was never submitted, not yet claimed (when submitted by hand), or ended longer ago than SLUICE_RETENTION"
    }
}
