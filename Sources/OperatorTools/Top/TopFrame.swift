import Contract
import JobQueue
import Observability
import Support

/// One frame of `sluice top`, computed from the machine's state and the screen's size. Designed for 80×24.
package struct TopFrame {
    /// The size of a screen in cells.
    struct Size: Equatable, Sendable {
        var columns = 80
        var rows = 24
    }

    /// The minimum size.
    static let least = Size(columns: 60, rows: 14)
    /// Lines above the heading of the workers, and lines at the end.
    private static let head = 7
    private static let foot = 2
    /// Milliseconds; longer waits of a queue are highlighted.
    private static let longWait = 10_000
    /// Microseconds; a longer p99 of interrupts is highlighted.
    private static let slowInterrupt = 100_000

    let machine: TopMachine
    let size: Size
    /// The address of Redis without the password.
    let place: String
    /// Whether the selected line is marked.
    var hasCursor = true

    /// The lines of the frame, at most as many and as long as the screen allows.
    var lines: [StyledLine] {
        guard size.columns >= Self.least.columns, size.rows >= Self.least.rows else {
            return [StyledLine("at least \(Self.least.columns)×\(Self.least.rows), please (q quits)").cut(to: size.columns)]
        }
        guard let snapshot = machine.snapshot else { return [StyledLine(machine.trouble ?? "reading from Redis").cut(to: size.columns)] }
        var lines = [title(snapshot), rates(snapshot), endings(snapshot)]
        lines += queues(snapshot)
        let (workerRows, jobRows) = shares(snapshot)
        lines += workers(snapshot, workerRows)
        lines += jobs(snapshot, jobRows)
        let blank = max(0, size.rows - Self.foot - lines.count)
        lines += Array(repeating: StyledLine(), count: blank)
        lines += [notice, keys]
        // Always all rows, so that the frame covers the previous one.
        return lines.prefix(size.rows).map { $0.cut(to: size.columns) }
    }

    /// The number of lines of the two lists, without headings.
    private func shares(_ snapshot: DeploymentSnapshot) -> (workers: Int, jobs: Int) {
        let available = size.rows - Self.head - 2 - Self.foot
        let (workers, jobs) = (max(1, snapshot.workers.count), max(1, snapshot.slowest.count))
        let forWorkers = min(workers, max(available / 2, available - jobs))
        return (forWorkers, min(jobs, available - forWorkers))
    }

    // MARK: the head

    /// The first line: Redis, the number of nodes, the time of the snapshot.
    private func title(_ snapshot: DeploymentSnapshot) -> StyledLine {
        func count(_ number: Int, _ name: String) -> String { "\(number) \(name)\(number == 1 ? "" : "s")" }
        let time = Timestamp(milliseconds: Int64(snapshot.milliseconds)).description.dropFirst(11).prefix(8)
        let right = "\(count(snapshot.workers.count, "worker")), \(count(snapshot.gateways.count, "gateway"))  \(time) UTC "
        let left = Cells.fit(" sluice  \(place)", max(8, size.columns - Cells.width(of: right) - 1))
        return StyledLine(left + " " + right).filled(to: size.columns, .selected)
    }

    /// Token and job rates, and used slots.
    private func rates(_ snapshot: DeploymentSnapshot) -> StyledLine {
        var line = StyledLine(" tokens/s ", .dim)
        line.add(Cells.fit(Quantity.rate(snapshot.tokensPerSecond), 8), .bold)
        line.add(Cells.fit(Self.spark(machine.history.suffix(16).map(\.tokensPerSecond)), 17), .good)
        line.add("jobs/s ", .dim)
        line.add(Cells.fit(Quantity.rate(snapshot.jobsPerSecond), 8), .bold)
        line.add("slots ", .dim)
        let isFull = snapshot.running >= snapshot.capacity && snapshot.waiting > 0
        line.add("\(Quantity.count(snapshot.running)) of \(Quantity.count(snapshot.capacity))  ", isFull ? .warning : .bold)
        return line
    }

    /// Ended jobs by outcome, and dead letters.
    private func endings(_ snapshot: DeploymentSnapshot) -> StyledLine {
        let all = snapshot.finished + snapshot.interrupted + snapshot.failed
        var line = StyledLine(" ended    ", .dim)
        line.add("\(Quantity.count(snapshot.finished)) finished  \(Quantity.count(snapshot.interrupted)) interrupted  ")
        let share = all == 0 ? 0 : Double(snapshot.failed) / Double(all)
        let percent = snapshot.failed == 0 ? "" : " (\(Quantity.rate(share * 100)) %)"
        line.add("\(Quantity.count(snapshot.failed)) failed\(percent)  ", share > 0.05 ? .alarm : .plain)
        if snapshot.dead > 0 {
            line.add("\(Quantity.count(snapshot.dead)) dead letter\(snapshot.dead == 1 ? "" : "s")", .warning)
        }
        return line
    }

    /// A one-line bar chart, scaled from zero to the maximum.
    static func spark(_ values: [Double]) -> String {
        let greatest = values.max() ?? 0
        return String(
            values.map { value -> Character in
                let step = greatest > 0 ? Int((value / greatest * 7).rounded()) : 0
                return ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"][min(max(0, step), 7)]
            })
    }

    // MARK: queues and latencies

    /// One line per queue, followed by one of the latencies.
    private func queues(_ snapshot: DeploymentSnapshot) -> [StyledLine] {
        var heading = StyledLine(Self.queueColumns("  QUEUE", "WAITING", "RUNNING", "OLDEST", "STATE"), .heading)
        heading.add(Self.latencyColumns("LAST MINUTE", "P50", "P99", "COUNT"), .heading)
        let latencies = [
            ("queue wait", snapshot.queueWait, Int.max), ("first token", snapshot.firstToken, Int.max),
            ("interrupt", snapshot.interruptClose, Self.slowInterrupt),
        ]
        var lines = [heading]
        for (queue, latency) in zip(snapshot.queues, latencies) {
            let row = TopMachine.Row.queue(queue.priority)
            let wait = queue.oldestWaitMilliseconds
            let cells = Self.queueColumns(
                marker(row) + queue.priority.rawValue, Quantity.count(queue.waiting), Quantity.count(queue.running),
                wait.map { Quantity.span(milliseconds: $0) } ?? "-", queue.isPaused ? "PAUSED" : "open")
            let style: StyledLine.Style = queue.isPaused ? .warning : wait ?? 0 > Self.longWait ? .alarm : .plain
            var line = StyledLine(cells, isChosen(row) ? .selected : style)
            let (p50, p99) = (latency.1.quantile(0.5), latency.1.quantile(0.99))
            line.add(
                Self.latencyColumns(
                    latency.0, p50.map { Quantity.span(microseconds: $0) } ?? "-", p99.map { Quantity.span(microseconds: $0) } ?? "-",
                    Quantity.count(latency.1.total)), p99 ?? 0 > latency.2 ? .alarm : .plain)
            lines.append(line)
        }
        return lines
    }

    private static func queueColumns(_ name: String, _ waiting: String, _ running: String, _ oldest: String, _ state: String) -> String {
        Cells.fit(name, 14) + Cells.fit(waiting, 8, alignedRight: true) + Cells.fit(running, 8, alignedRight: true)
            + Cells.fit(oldest, 8, alignedRight: true) + "  " + Cells.fit(state, 7)
    }

    private static func latencyColumns(_ name: String, _ p50: String, _ p99: String, _ count: String) -> String {
        Cells.fit(name, 12) + Cells.fit(p50, 7, alignedRight: true) + Cells.fit(p99, 7, alignedRight: true)
            + Cells.fit(count, 7, alignedRight: true)
    }

    // MARK: workers

    /// The heading and the visible workers.
    private func workers(_ snapshot: DeploymentSnapshot, _ rows: Int) -> [StyledLine] {
        let name = max(16, size.columns - 2 - 12 - 10 - 9 - 9 - 11 - 7)
        func columns(_ first: String, _ slots: String, _ bar: String, _ tokens: String, _ jobs: String, _ state: String, _ up: String)
            -> String
        {
            Cells.fit(first, name + 2) + Cells.fit(slots, 12, alignedRight: true) + " " + Cells.fit(bar, 9)
                + Cells.fit(tokens, 9, alignedRight: true) + Cells.fit(jobs, 9, alignedRight: true) + "  " + Cells.fit(state, 9)
                + Cells.fit(up, 7, alignedRight: true)
        }
        let shown = window(.workers, rows)
        var lines = [
            StyledLine(
                columns("  WORKER\(Self.part(shown.count, snapshot.workers.count))", "SLOTS", "", "TOKENS/S", "JOBS/S", "STATE", "UP"),
                .heading)
        ]
        guard !snapshot.workers.isEmpty else {
            return lines + [StyledLine("  no worker is running", snapshot.waiting > 0 ? .alarm : .warning)]
        }
        for worker in snapshot.workers[shown] {
            let (row, report) = (TopMachine.Row.worker(worker.name), worker.report)
            let cells = columns(
                marker(row) + Terminal.printable(worker.name),
                "\(Quantity.count(report.inFlight))/\(Quantity.count(report.capacity))", Self.bar(report.inFlight, of: report.capacity, 8),
                Quantity.rate(report.tokensPerSecond), Quantity.rate(report.jobsPerSecond), report.isDraining ? "draining" : "working",
                snapshot.uptime(since: report.startedMilliseconds))
            lines.append(StyledLine(cells, isChosen(row) ? .selected : report.isDraining ? .warning : .plain))
        }
        return lines
    }

    /// A bar of `width` cells that shows a share of the whole.
    static func bar(_ value: Int, of whole: Int, _ width: Int) -> String {
        guard whole > 0 else { return "" }
        // A value above zero has at least one cell.
        let filled = value == 0 ? 0 : min(width, max(1, Int((Double(value) / Double(whole) * Double(width)).rounded())))
        return String(repeating: "█", count: filled) + String(repeating: "·", count: width - filled)
    }

    // MARK: jobs

    /// The heading and the visible jobs, slowest first.
    private func jobs(_ snapshot: DeploymentSnapshot, _ rows: Int) -> [StyledLine] {
        let rest = size.columns - 32 - 6 - 13 - 7 - 2
        let worker = min(24, rest / 2 + 1)
        func columns(_ id: String, _ age: String, _ phase: String, _ tokens: String, _ workerName: String, _ model: String) -> String {
            Cells.fit(id, 32) + Cells.fit(age, 6, alignedRight: true) + "  " + Cells.fit(phase, 11)
                + Cells.fit(tokens, 7, alignedRight: true) + "  " + Cells.fit(workerName, worker - 1) + " "
                + Cells.fit(model, rest - worker)
        }
        let jobs = snapshot.slowest
        let shown = window(.jobs, rows)
        var lines = [
            StyledLine(
                columns("  SLOWEST JOBS\(Self.part(shown.count, jobs.count))", "AGE", "PHASE", "TOKENS", "WORKER", "MODEL"), .heading)
        ]
        guard !jobs.isEmpty else { return lines + [StyledLine("  no job is running", .dim)] }
        for job in jobs[shown] {
            let row = TopMachine.Row.job(job.id)
            let cells = columns(
                marker(row) + Terminal.printable(job.id),
                Quantity.span(milliseconds: max(0, snapshot.milliseconds.saturatingSubtracting(job.submittedMilliseconds))),
                Terminal.printable(job.phase),
                Quantity.count(job.tokens), Terminal.printable(job.worker), Terminal.printable(job.model))
            lines.append(StyledLine(cells, isChosen(row) ? .selected : job.phase == "backoff" ? .warning : .plain))
        }
        return lines
    }

    // MARK: common parts

    private func marker(_ row: TopMachine.Row) -> String { isChosen(row) ? "> " : "  " }

    private func isChosen(_ row: TopMachine.Row) -> Bool { hasCursor && machine.selected == row }

    /// The visible part of a list, which includes the selected line.
    private func window(_ section: TopMachine.Section, _ rows: Int) -> Range<Int> {
        let list = machine.rows(of: section)
        let chosen = list.firstIndex(of: machine.selected) ?? 0
        let start = min(max(0, chosen - rows + 1), max(0, list.count - rows))
        return start..<min(list.count, start + rows)
    }

    /// How much of a list is visible; empty if all of it is.
    private static func part(_ shown: Int, _ all: Int) -> String { shown < all ? " (\(shown) of \(all))" : "" }

    /// The question, the problem or the message above the line of keys.
    private var notice: StyledLine {
        if let question = machine.question { return StyledLine(" \(question.text)  y/n", .warning) }
        if let trouble = machine.trouble { return StyledLine(" \(trouble)", .alarm) }
        return StyledLine(machine.message.map { " \(Terminal.printable($0))" } ?? "", .bold)
    }

    private var keys: StyledLine {
        var line = StyledLine(" ")
        for (key, meaning) in [
            ("↑↓", "Tab choose"), ("p", "pause"), ("d", "drain"), ("i", "interrupt"), ("q", "quit"),
        ] {
            line.add(key, .bold)
            line.add(" \(meaning)   ", .dim)
        }
        return line
    }
}

extension TopFrame {
    /// One frame as plain text, with all rows and without the line of keys.
    package static func text(_ snapshot: DeploymentSnapshot, place: String) -> String {
        var machine = TopMachine()
        _ = machine.receive(.snapshot(snapshot))
        let rows = snapshot.workers.count + snapshot.slowest.count + least.rows
        let frame = TopFrame(machine: machine, size: Size(columns: 100, rows: rows), place: place, hasCursor: false)
        let lines = frame.lines.dropLast(2).map { $0.text.replacing(/\ +$/, with: "") }
        return lines.joined(separator: "\n").replacing(/\n+$/, with: "") + "\n"
    }
}
