import ArgumentParser
import Glibc
import Observability

@main
struct Sluice: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sluice",
        abstract: "Carries LLM generation through Redis, and stops it when it is told to.",
        discussion: """
            Settings come from the environment (SLUICE_…) or a file of NAME=value lines (--config); the environment wins. \
            "sluice config check" lists them all.

            Exit status: 0 done, 1 failed, 2 wrong usage or settings, 69 Redis, gateway or upstream out of reach.
            """,
        version: Build.version,
        subcommands: [
            DevCommand.self, GatewayCommand.self, WorkerCommand.self, SimulateCommand.self, ChatCommand.self, StatusCommand.self,
            TopCommand.self, JobCommand.self, DeadCommand.self, QueueCommand.self,
            WorkerDrainCommand.self, ConfigCommand.self, BenchCommand.self,
        ])

    static func main() async {
        // A reader of our output or a peer that went away is told by a write's result, not by a signal that ends us.
        signal(SIGPIPE, SIG_IGN)
        await run(Array(CommandLine.arguments.dropFirst()))
    }

    private static func run(_ arguments: [String]) async -> Never {
        do {
            var command = try await asyncParseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            Glibc.exit(ExitStatus.done.rawValue)
        } catch let failure as CommandFailure {
            let message = Terminal.printable(failure.message, keepingLines: true)
            if !message.isEmpty { StandardError.write(message.hasSuffix("\n") ? message : message + "\n") }
            Glibc.exit(failure.status.rawValue)
        } catch let faults as SettingFaults {
            StandardError.write(faults.description + "\n")
            Glibc.exit(ExitStatus.usage.rawValue)
        } catch {
            end(with: error)
        }
    }

    /// ArgumentParser's own: help and version are no failure, wrong usage is status 2 here (there it is 64).
    private static func end(with error: any Error) -> Never {
        let code = exitCode(for: error)
        if code.isSuccess { exit(withError: error) }
        let isUsage = code == .validationFailure
        let message = isUsage ? fullMessage(for: error) : "sluice: \(error)"
        StandardError.write(Terminal.printable(message, keepingLines: true) + "\n")
        Glibc.exit((isUsage ? ExitStatus.usage : .failed).rawValue)
    }
}
