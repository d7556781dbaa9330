import Contract
import JSONCodec
import JobQueue
import Observability
import Testing

@testable import OperatorTools

@Suite("sluice top, without a terminal")
struct TopTests {
    private static func snapshot(workers: Int = 3, jobsEach: Int = 4, at milliseconds: Int = 1_795_368_212_147) -> DeploymentSnapshot {
        var snapshot = DeploymentSnapshot(milliseconds: milliseconds)
        snapshot.queues[0].running = 12
        snapshot.queues[2].waiting = 1_234
        snapshot.queues[2].oldestWaitMilliseconds = 61_000
        snapshot.queues[2].isPaused = true
        snapshot.dead = 2
        for number in 0..<workers {
            var report = WorkerReport()
            report.capacity = 64
            report.inFlight = 4
            report.tokensPerSecond = 1_000.4
            report.jobsPerSecond = 2.5
            report.finished = 90
            report.interrupted = 3
            report.failed = 1
            report.startedMilliseconds = milliseconds - 3_600_000
            for _ in 0..<99 { report.interruptClose.record(microseconds: 400) }
            report.interruptClose.record(microseconds: 9_000)
            report.slowest = (0..<jobsEach).map { job in
                RunningJob(
                    id: "p0-01JD0000000000000000000\(number)\(job)", priority: "standard", model: "qwen-plus", phase: "streaming",
                    upstream: "openai", attempt: 1, tokens: 10, submittedMilliseconds: milliseconds - 1_000 * (number * 10 + job))
            }
            snapshot.workers.append(
                DeploymentSnapshot.Worker(
                    name: "w\(number)",
                    report: WorkerReport(
                        worker: "w\(number)", fields: Dictionary(report.fields.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }))))
        }
        return snapshot
    }

    private static func machine(_ snapshot: DeploymentSnapshot) -> TopMachine {
        var machine = TopMachine()
        _ = machine.receive(.snapshot(snapshot))
        return machine
    }

    private func press(_ machine: inout TopMachine, _ keys: TopKey...) -> TopMachine.Action {
        keys.reduce(.none) { _, key in machine.receive(.key(key)) }
    }

    @Test func `a worker's report is parsed unchanged`() {
        let snapshot = Self.snapshot()
        #expect(snapshot.workers[2].report.slowest.map(\.worker) == ["w2", "w2", "w2", "w2"])
        #expect(snapshot.workers[2].report.tokensPerSecond == 1_000.4)
        #expect(snapshot.interruptClose.total == 300)
        #expect(snapshot.slowest.map(\.id).first == "p0-01JD000000000000000000023")
        let fields = snapshot.workers[0].report.fields
        #expect(fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count } < 2_000, "a heartbeat is small")
        // A heartbeat of another version or another program.
        let foreign = WorkerReport(worker: "w", fields: ["capacity": "5", "in_flight": "x", "queue_wait": "1,,a,3", "slowest": "{"])
        #expect(foreign.capacity == 5 && foreign.inFlight == 0 && foreign.queueWait.total == 4 && foreign.slowest.isEmpty)
    }

    @Test func `quantiles are within the bucket`() throws {
        var buckets = LatencyBuckets()
        #expect(buckets.quantile(0.5) == nil && buckets.text == "")
        for value in [120, 140, 2_500, 40_000_000] { buckets.record(microseconds: value) }
        #expect((100...150).contains(try #require(buckets.quantile(0.5))))
        #expect((30_000_000...50_000_000).contains(try #require(buckets.quantile(0.99))))
        #expect(LatencyBuckets(parsing: buckets.text) == buckets)
        #expect((buckets + buckets).total == 8 && (buckets - buckets).total == 0)
        buckets.record(microseconds: .max)
        #expect(buckets.quantile(1) == LatencyBuckets.bounds.last)
        #expect(LatencyBuckets.bounds.count + 1 == LatencyBuckets.slots && LatencyBuckets.bounds == LatencyBuckets.bounds.sorted())
    }

    @Test(arguments: [(80, 24), (60, 14), (200, 60), (81, 15)])
    func `a frame fits the screen`(columns: Int, rows: Int) {
        let machine = Self.machine(Self.snapshot(workers: 30))
        let lines = TopFrame(machine: machine, size: TopFrame.Size(columns: columns, rows: rows), place: "redis://somewhere:6379").lines
        #expect(lines.count == rows)
        for line in lines { #expect(line.width <= columns, "\(line.text)") }
        let text = lines.map(\.text).joined(separator: "\n")
        for fact in ["interactive", "PAUSED", "1,234", "1m01s", "30 workers", "finished", "SLOWEST JOBS (", "q quit"] {
            #expect(text.contains(fact), "\(fact) in\n\(text)")
        }
        // Ids are complete, so that they can be copied into another command.
        #expect(text.contains("p0-01JD0000000000000000000"))
    }

    @Test func `a screen that is too small shows a message`() {
        let lines = TopFrame(machine: Self.machine(Self.snapshot()), size: TopFrame.Size(columns: 40, rows: 5), place: "x").lines
        #expect(lines.count == 1 && lines[0].text == "at least 60×14, please (q quits)")
    }

    @Test func `keys select, ask for confirmation and act`() {
        var machine = Self.machine(Self.snapshot())
        #expect(press(&machine, .character("d")) == .none && machine.message?.contains("choose one first") == true)
        #expect(press(&machine, .character("p")) == .none && machine.question?.text.hasPrefix("Pause interactive") == true)
        #expect(press(&machine, .character("n")) == .none && machine.question == nil && machine.message == "cancelled")
        #expect(press(&machine, .character("p"), .character("y")) == .pause(.interactive, true))
        #expect(press(&machine, .down, .down, .character("p"), .character("y")) == .pause(.batch, false))
        #expect(press(&machine, .next, .down, .character("d"), .character("y")) == .drain("w1"))
        #expect(press(&machine, .next, .character("i"), .character("Y")) == .interrupt("p0-01JD000000000000000000023"))
        #expect(press(&machine, .next, .up, .up) == .none && machine.selected == .queue(.interactive))
        #expect(press(&machine, .pageDown, .pageDown, .pageDown) == .none && machine.selected == .job("p0-01JD000000000000000000000"))
        #expect(press(&machine, .character("q")) == .quit)
        #expect(press(&machine, .character("i"), .end) == .quit)
    }

    @Test func `an action never affects a row that moved under the cursor`() {
        var machine = Self.machine(Self.snapshot())
        _ = press(&machine, .next, .down, .character("d"))
        #expect(machine.question?.action == .drain("w1"))
        var next = Self.snapshot(at: 1_795_368_213_147)
        next.workers.removeFirst()
        _ = machine.receive(.snapshot(next))
        #expect(machine.selected == .worker("w1") && machine.question?.action == .drain("w1"), "it moved up by a line")
        next.workers.removeFirst()
        _ = machine.receive(.snapshot(next))
        #expect(machine.selected == .worker("w2") && machine.question == nil, "it is gone, and so is the question")
    }

    @Test func `a problem is shown until it ends`() {
        var machine = Self.machine(Self.snapshot())
        _ = machine.receive(.unreachable("Redis does not answer"))
        func text() -> String { TopFrame(machine: machine, size: TopFrame.Size(), place: "x").lines.map(\.text).joined() }
        #expect(text().contains("Redis does not answer") && text().contains("interactive"))
        _ = machine.receive(.snapshot(Self.snapshot()))
        #expect(!text().contains("Redis does not answer"))
    }

    @Test func `the selected line is always visible`() {
        var machine = Self.machine(Self.snapshot(workers: 40))
        _ = press(&machine, .next)
        for number in 0..<40 {
            let chosen = TopFrame(machine: machine, size: TopFrame.Size(), place: "x").lines.filter { $0.text.hasPrefix("> ") }
            #expect(chosen.count == 1 && chosen.first?.text.hasPrefix("> w\(number) ") == true)
            _ = press(&machine, .down)
        }
    }

    @Test func `terminal bytes are decoded into keys`() {
        let bytes = Array("\u{1B}[A\u{1B}OBjq\t\u{1B}[5~\u{1B}[6~\u{1B}[1;5C\u{03}\u{1B}".utf8)
        #expect(
            TopKeyDecoder.keys(in: bytes) == [
                .up, .down, .character("j"), .character("q"), .next, .pageUp, .pageDown, .end, .escape,
            ])
        #expect(TopKeyDecoder.keys(in: Array("\u{1B}[".utf8)).isEmpty && TopKeyDecoder.keys(in: [0xFF, 0x80, 0]).isEmpty)
    }

    @Test func `control characters in names are removed`() {
        var snapshot = Self.snapshot(workers: 1, jobsEach: 1)
        snapshot.workers[0].name = "evil\u{1B}[2J"
        snapshot.workers[0].report.slowest[0].model = "\u{9B}31m宽宽宽宽宽宽宽宽宽宽宽宽"
        let lines = TopFrame(machine: Self.machine(snapshot), size: TopFrame.Size(), place: "x").lines
        for line in lines {
            #expect(line.width <= 80 && !line.text.unicodeScalars.contains { $0.properties.generalCategory == .control }, "\(line.text)")
        }
        #expect(lines[0].rendered(hasColours: false) == lines[0].text)
        #expect(lines[0].rendered(hasColours: true).hasSuffix("\u{1B}[0m"))
    }

    /// Values that a broken or hostile node may write into its heartbeat.
    @Test(arguments: ["9223372036854775807", "-9223372036854775808", "inf", "-inf", "nan", "1e300", "", "x", "\u{1B}[2J\u{202E}"])
    func `any number in a heartbeat can be displayed`(value: String) throws {
        var snapshot = DeploymentSnapshot(milliseconds: .max)
        var fields = Dictionary(uniqueKeysWithValues: WorkerReport().fields.map { ($0.name, value) })
        for name in ["queue_wait", "first_token", "interrupt_close"] {
            fields[name] = Array(repeating: value, count: 60).joined(separator: ",")
        }
        let job: JSON = [
            "id": .string(value), "submitted_ms": .number("-9223372036854775808"), "tokens": .number("1e300"), "model": .string(value),
        ]
        for number in 0..<1_100 {
            fields["slowest"] = JSON.array([job]).text
            snapshot.workers.append(.init(name: "w\(number)\(value)", report: WorkerReport(worker: "w", fields: fields)))
        }
        snapshot.queues[0].waiting = .max
        snapshot.queues[1].waiting = .max
        snapshot.queues[1].running = .max
        snapshot.queues[2].running = .max
        snapshot.dead = .max
        for text in [snapshot.text, TopFrame.text(snapshot, place: "redis"), StandardOutput.escaped(snapshot.json.text)] {
            #expect(!text.isEmpty && !text.unicodeScalars.contains { $0.steersTerminal && $0 != "\n" })
        }
        #expect(try JSON(parsing: snapshot.json.text, rules: .lenient)["workers"]?.array?.count == 1_100)
    }
}
