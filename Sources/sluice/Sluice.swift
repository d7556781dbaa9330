import ArgumentParser
import Glibc
import Observability
import OperatorTools
import Support

/// The root command. Maps errors to exit statuses.
@main
struct Sluice: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sluice",
        abstract: "Runs LLM generation jobs through Redis Streams and interrupts them on request.",
        discussion: """
            Settings come from the environment (SLUICE_…) or a file of NAME=value lines (--config); the environment takes precedence. \
            "sluice config check" lists them all.

            Exit status: 0 success, 1 failure, 2 invalid arguments or settings, 69 Redis, gateway or upstream unreachable.
            """,
        version: BuildInformation.version,
        subcommands: [
            DevCommand.self, GatewayCommand.self, WorkerCommand.self, SimulateCommand.self, ChatCommand.self, StatusCommand.self,
            TopCommand.self, UsageCommand.self, JobCommand.self, DeadCommand.self, QueueCommand.self,
            WorkerDrainCommand.self, ConfigCommand.self, BenchCommand.self,
        ])

    static func main() async {
        // A write to a closed pipe or connection must fail with EPIPE instead of ending the process.
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

    /// Ends the process for an error of ArgumentParser. Help and version exit with 0; invalid usage exits with 2 instead of
    /// ArgumentParser's 64.
    private static func end(with error: any Error) -> Never {
        let code = exitCode(for: error)
        if code.isSuccess { exit(withError: error) }
        let isUsage = code == .validationFailure
        let message = isUsage ? fullMessage(for: error) : "sluice: \(error)"
        StandardError.write(Terminal.printable(message, keepingLines: true) + "\n")
        Glibc.exit((isUsage ? ExitStatus.usage : .failed).rawValue)
    }
}
