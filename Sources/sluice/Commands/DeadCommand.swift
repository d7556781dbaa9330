import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice dead`.
struct DeadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead", abstract: "List, retry and purge dead letters.",
        subcommands: [DeadListCommand.self, DeadRetryCommand.self, DeadPurgeCommand.self])
}

/// `sluice dead list`.
struct DeadListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List dead letters without their prompts, newest first.")

    @Option(name: .long, help: "Maximum number of dead letters.") var limit = 50
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard (1...10_000).contains(limit) else { throw ValidationError("--limit may be 1 to 10000.") }
    }

    func run() async throws {
        let letters = try await settings.withQueue { try await $0.queue.deadLetters(limit: limit) }
        if output.json {
            StandardOutput.writeLine(.array(letters.map(\.json)))
        } else if letters.isEmpty {
            StandardOutput.write("no dead letters\n")
        } else {
            var table = TextTable(header: DeadLetter.columns)
            for letter in letters { table.add(letter.cells) }
            StandardOutput.write(table.text)
        }
    }
}

/// `sluice dead retry`. Continues after a job that cannot be retried; the exit status is then 1.
struct DeadRetryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry", abstract: "Resubmit dead jobs as new jobs and remove their dead letters.")

    @Argument(help: "Job ids as shown by sluice dead list.") var ids: [String] = []
    @Flag(name: .long, help: "Retry all dead letters, at most 10,000 at a time.") var all = false
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard all != !ids.isEmpty else { throw ValidationError("Name job ids or use --all, not both.") }
    }

    func run() async throws {
        try await settings.withQueue { connection in
            let queue = connection.queue
            var failed = 0
            var chosen: [DeadLetter] = []
            if all {
                chosen = try await queue.deadLetters(limit: 10_000).reversed()
            } else {
                for id in ids {
                    if let letter = try await queue.deadLetter(id) {
                        chosen.append(letter)
                    } else {
                        failed += 1
                        StandardError.write(Retry.refusal(id))
                    }
                }
            }
            for letter in chosen {
                do {
                    try await Retry.run(letter, on: queue, json: output.json)
                } catch let failure as CommandFailure {
                    failed += 1
                    StandardError.write(Terminal.printable(failure.message) + "\n")
                }
            }
            guard failed == 0 else { throw CommandFailure(.failed, "") }
        }
    }
}

/// Retries and their output.
enum Retry {
    static func refusal(_ id: String) -> String {
        "sluice: there is no dead letter of \(Terminal.printable(id)), so it cannot be retried: only a dead letter contains the prompt\n"
    }

    /// Resubmits the job of a dead letter and prints the new job's id.
    /// - Throws: `CommandFailure` when the job is refused; errors of the queue.
    static func run(_ letter: DeadLetter, on queue: JobProducer, json: Bool) async throws {
        let id: JobID
        do { id = try await queue.retry(letter) } catch let refusal as DeadLetterRefusal { throw refusal.failure(of: letter) }
        if json {
            StandardOutput.writeLine(["id": .string(id.rawValue), "retry_of": letter.id.map(JSON.string) ?? .null])
        } else {
            StandardOutput.write("\(Terminal.printable(letter.id ?? letter.entry)) was resubmitted as \(id)\n")
        }
    }
}

/// `sluice dead purge`.
struct DeadPurgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "purge", abstract: "Delete dead letters and their prompts permanently.")

    @Argument(help: "Job ids as shown by sluice dead list.") var ids: [String] = []
    @Flag(name: .long, help: "Delete all dead letters.") var all = false
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        guard all != !ids.isEmpty else { throw ValidationError("Name job ids or use --all, not both.") }
    }

    func run() async throws {
        let (count, missing) = try await settings.withQueue { connection -> (Int, [String]) in
            let queue = connection.queue
            if all { return (try await queue.purgeDeadLetters(), []) }
            var count = 0
            var missing: [String] = []
            for id in ids {
                if let letter = try await queue.deadLetter(id) {
                    count += try await queue.removeDeadLetters([letter])
                } else {
                    missing.append(id)
                }
            }
            return (count, missing)
        }
        if output.json {
            StandardOutput.writeLine(["purged": .integer(count), "missing": .array(missing.map(JSON.string))])
        } else {
            StandardOutput.write("\(count) dead letter\(count == 1 ? "" : "s") removed\n")
        }
        guard missing.isEmpty else {
            throw CommandFailure(.failed, "sluice: there is no dead letter of " + missing.map(Terminal.printable).joined(separator: ", "))
        }
    }
}
