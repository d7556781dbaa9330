import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice job`.
struct JobCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "job", abstract: "List, show, interrupt and retry jobs.",
        subcommands: [JobListCommand.self, JobShowCommand.self, JobTailCommand.self, JobInterruptCommand.self, JobRetryCommand.self])
}

extension JobID: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

/// `sluice job interrupt`.
struct JobInterruptCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "interrupt",
        abstract: "Interrupt a job: its worker closes the upstream connection.",
        discussion: """
            The interrupt key is stored and published even for an unknown job, so that a job that was added to the queue directly and is not \
            claimed yet never runs. A job that has ended does not change; this is not an error.
            """)

    @Argument(help: "The job's id.") var id: JobID
    @Option(name: .long, help: "The reason, reported in the job's last event.") var reason = InterruptReason.userStop
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard Interrupt.isReason(reason) else {
            throw ValidationError("--reason must be 1 to \(Interrupt.maximumReasonLength) characters of A-Z a-z 0-9 _ . -.")
        }
    }

    func run() async throws {
        let answer = try await settings.withQueue { try await $0.queue.forceInterrupt(id, reason: reason) }
        let state = answer.state?.rawValue ?? "unknown"
        if output.json {
            StandardOutput.writeLine([
                "id": .string(id.rawValue), "state": .string(state), "status": answer.stored ? "SUCCESS" : "FAILED",
            ])
        } else if answer.stored {
            StandardOutput.write(
                answer.state == nil
                    ? "\(id) has no record; it will be interrupted if a worker claims it\n"
                    : "\(id) was \(state) and is being interrupted\n")
        } else {
            StandardOutput.write("\(id) is \(state) already\n")
        }
    }
}

/// `sluice job retry`.
struct JobRetryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry",
        abstract: "Resubmit a dead job as a new job.",
        discussion: "Only a job with a dead letter can be retried, because the dead letter contains the prompt. The dead letter is removed."
    )

    @Argument(help: "The dead job's id.") var id: String
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func run() async throws {
        try await settings.withQueue { connection in
            guard let letter = try await connection.queue.deadLetter(id) else { throw CommandFailure(.failed, Retry.refusal(id)) }
            try await Retry.run(letter, on: connection.queue, json: output.json)
        }
    }
}
