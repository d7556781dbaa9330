import ArgumentParser
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice usage`.
struct UsageCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usage",
        abstract: "Show jobs and tokens by tenant, day and model.",
        discussion: "Tokens are those that upstreams reported; estimated ones are shown apart. Days are UTC; 35 days are kept.")

    @Option(name: .long, help: "First day, YYYY-MM-DD (default: the oldest that is kept).") var from: String?
    @Option(name: .long, help: "Last day, YYYY-MM-DD (default: today).") var to: String?
    @Option(name: .long, help: "Only this tenant.") var tenant: String?
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    func validate() throws {
        for (name, text) in [("--from", from), ("--to", to)] {
            if let text, UsageDay.parse(text) == nil { throw ValidationError("\(name) is not a date YYYY-MM-DD.") }
        }
        if let from, let to, from > to { throw ValidationError("--from is after --to.") }
    }

    func run() async throws {
        let rows = try await settings.withQueue { connection in
            let today = try await connection.queue.today()
            let first = max(from.flatMap { UsageDay.parse($0) } ?? 0, today - UsageDay.kept)
            let last = min(to.flatMap { UsageDay.parse($0) } ?? today, today)
            return first > last ? [] : try await connection.queue.usage(of: first...last, tenant: tenant)
        }
        if output.json {
            StandardOutput.writeLine(.array(rows.map(\.json)))
        } else if rows.isEmpty {
            StandardOutput.write("no usage\n")
        } else {
            var table = TextTable(header: ["DAY", "TENANT", "MODEL", "JOBS", "INTERRUPTED", "PROMPT", "COMPLETION", "ESTIMATED", "SAVED"])
            for row in rows {
                table.add([
                    UsageDay.text(row.day), row.tenant, row.model, String(row.jobs), String(row.interrupted), String(row.promptTokens),
                    String(row.completionTokens), "\(row.estimatedPromptTokens)+\(row.estimatedCompletionTokens)", String(row.savedTokens),
                ])
            }
            StandardOutput.write(table.text)
        }
    }
}
