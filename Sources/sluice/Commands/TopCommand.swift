import ArgumentParser
import JobQueue

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
        try await Deployment.with(settings) { deployment in
            let first = try await deployment.queue.snapshot()
            if asJSON {
                try await Self.print(first, of: deployment, every: interval, count: count ?? .max) { StandardOutput.writeLine($0.json) }
            } else if terminal.isInteractive, !terminal.isDumb {
                try await TopSession(deployment: deployment, interval: interval, hasColours: terminal.hasColours).run(first: first)
            } else {
                try await Self.print(first, of: deployment, every: interval, count: count ?? 1) { snapshot in
                    StandardOutput.write(Self.text(snapshot, place: "\(deployment.url)"))
                }
            }
        }
    }

    /// Prints snapshots until the count is reached or the output is closed.
    /// - Parameter write: returns false when the output is closed.
    private static func print(
        _ first: DeploymentSnapshot, of deployment: Deployment, every interval: Duration, count: Int,
        _ write: (DeploymentSnapshot) -> Bool
    ) async throws {
        var (snapshot, left) = (first, count)
        while write(snapshot), left > 1 {
            left -= 1
            try await Task.sleep(for: interval)
            snapshot = try await deployment.queue.snapshot()
        }
    }

    /// One frame as plain text, with all rows and without the line of keys.
    static func text(_ snapshot: DeploymentSnapshot, place: String) -> String {
        var machine = TopMachine()
        _ = machine.receive(.snapshot(snapshot))
        let rows = snapshot.workers.count + snapshot.slowest.count + TopFrame.least.rows
        let frame = TopFrame(machine: machine, size: TopFrame.Size(columns: 100, rows: rows), place: place, hasCursor: false)
        let lines = frame.lines.dropLast(2).map { $0.text.replacing(/\ +$/, with: "") }
        return lines.joined(separator: "\n").replacing(/\n+$/, with: "") + "\n"
    }
}
