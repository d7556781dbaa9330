import ArgumentParser
import JobQueue
import OperatorTools

/// `sluice top`.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch queues, workers, rates, latencies and the slowest jobs live; pause, drain and interrupt by key.",
        discussion: """
            Requires only Redis. Rates cover the last ten seconds, latencies the last minute. If standard output is not a terminal, one snapshot is \
            printed as text. --json prints one snapshot per line until the command is stopped. NO_COLOR turns colours off.
            """)

    @Option(name: .long, help: "Interval between snapshots, such as 500ms or 2s.") var interval = "1s"
    @Option(name: .long, help: "Number of snapshots to print, with --json or without a terminal.") var count: Int?
    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption

    private static let intervals: ClosedRange<Duration> = .milliseconds(100) ... .seconds(3_600)

    func validate() throws {
        guard let interval = SettingValue.duration(interval), Self.intervals.contains(interval) else {
            throw ValidationError("--interval may be 100ms to 1h.")
        }
        if let count, !(1...1_000_000_000).contains(count) { throw ValidationError("--count may be 1 to 1000000000.") }
    }

    func run() async throws {
        guard let interval = SettingValue.duration(interval) else { return }
        let (asJSON, count) = (output.json, count)
        let terminal = Terminal()
        try await settings.withQueue { connection in
            let first = try await connection.queue.snapshot()
            if asJSON {
                try await Self.print(first, of: connection.queue, every: interval, count: count ?? .max) {
                    StandardOutput.writeLine($0.json)
                }
            } else if terminal.isInteractive, !terminal.isDumb {
                try await TopSession(connection: connection, interval: interval, hasColours: terminal.hasColours).run(first: first)
            } else {
                try await Self.print(first, of: connection.queue, every: interval, count: count ?? 1) { snapshot in
                    StandardOutput.write(TopFrame.text(snapshot, place: connection.address))
                }
            }
        }
    }

    /// Prints snapshots until the count is reached or the output is closed.
    /// - Parameter write: returns false when the output is closed.
    private static func print(
        _ first: DeploymentSnapshot, of queue: JobProducer, every interval: Duration, count: Int,
        _ write: (DeploymentSnapshot) -> Bool
    ) async throws {
        var (snapshot, left) = (first, count)
        while write(snapshot), left > 1 {
            left -= 1
            try await Task.sleep(for: interval)
            snapshot = try await queue.snapshot()
        }
    }
}
