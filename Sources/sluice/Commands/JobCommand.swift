import ArgumentParser
import Contract
import JSONCodec
import JobQueue

struct JobCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "job", abstract: "Look at jobs, stop them, try them again.",
        subcommands: [JobListCommand.self, JobShowCommand.self, JobTailCommand.self, JobInterruptCommand.self, JobRetryCommand.self])
}

extension JobID: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

struct JobInterruptCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "interrupt",
        abstract: "Stop a job: its worker closes the upstream's connection.",
        discussion: """
            The wish is stored and published whatever is known of the job, so that one that was submitted by hand and not yet claimed never runs. \
            A job that has ended is left as it is, which is no error.
            """)

    @Argument(help: "The job's id.") var id: JobID
    @Option(name: .long, help: "Why, as the job's last event will tell.") var reason = InterruptReason.userStop
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard Interrupt.isReason(reason) else {
            throw ValidationError("--reason may be 1 to \(Interrupt.maximumReasonLength) of A-Z a-z 0-9 _ . -.")
        }
    }

    func run() async throws {
        let answer = try await Deployment.with(settings) { try await $0.queue.forceInterrupt(id, reason: reason) }
        let state = answer.state?.rawValue ?? "unknown"
        if output.json {
            StandardOutput.writeLine([
                "id": .string(id.rawValue), "state": .string(state), "status": answer.stored ? "SUCCESS" : "FAILED",
            ])
        } else if answer.stored {
            StandardOutput.write(
                answer.state == nil
                    ? "\(id) has no record; should it be claimed, it will be interrupted\n"
                    : "\(id) was \(state) and is being interrupted\n")
        } else {
            StandardOutput.write("\(id) is \(state) already\n")
        }
    }
}

struct JobRetryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry",
        abstract: "Submit a dead job again, as a new job.",
        discussion: "Only a job with a dead letter can be retried: nothing else still holds what was asked. The letter is removed.")

    @Argument(help: "The dead job's id.") var id: String
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        try await Deployment.with(settings) { deployment in
            let letters = DeadLetters(deployment: deployment)
            guard let letter = try await letters.find(id) else { throw CommandFailure(.failed, Retry.refusal(id)) }
            Retry.tell(try await letters.retry(letter), of: letter, json: output.json)
        }
    }
}
