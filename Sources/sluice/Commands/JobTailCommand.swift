import ArgumentParser
import Contract
import JobQueue
import OperatorTools

/// `sluice job tail`.
struct JobTailCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tail",
        abstract: "Print a job's answer from its beginning and follow it until its end.",
        discussion: "Text goes to standard output, other events to standard error. With --json every event is one line on standard output.")

    @Argument(help: "The job's id.") var id: JobID
    @Flag(name: .long, help: "Wait for a job that does not exist yet.") var wait = false
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        try await settings.withQueue { connection in
            if !wait, try await connection.queue.story(of: id) == nil { throw CommandFailure(.failed, UnknownJob.message(id)) }
            try await connection.withFeed { feed in
                // Unbounded buffering is safe: the events of a job do not exceed SLUICE_LOG_MAX bytes.
                let (events, continuation) = AsyncStream.makeStream(of: [LoggedEvent].self)
                let following = try await feed.follow(id, after: nil) { batch in
                    continuation.yield(batch)
                    if batch.last?.event.isTerminal == true { continuation.finish() }
                }
                for await batch in events {
                    for event in batch { show(event) }
                }
                feed.stop(following)
            }
        }
    }

    /// Prints one event.
    private func show(_ logged: LoggedEvent) {
        if output.json {
            StandardOutput.writeLine(escaping: String(decoding: logged.json, as: UTF8.self))
            return
        }
        switch logged.event {
        case .text(let text): StandardOutput.write(Terminal.printable(text, keepingLines: true))
        case .reasoning, .reasoningMark, .upstream: break
        default:
            let story = JobStory(id: id, record: nil, events: [logged], interrupt: nil)
            for step in story.steps {
                let isLast = logged.event.isTerminal
                StandardError.write(
                    "\(isLast ? "\n" : "")[\(step.type)\(step.detail.isEmpty ? "" : " " + Terminal.printable(step.detail))]\n")
            }
        }
    }
}
