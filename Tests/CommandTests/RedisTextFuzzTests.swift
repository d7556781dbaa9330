import Contract
import JSONCodec
import Observability
import RedisClient
import TestSupport
import Testing

@testable import JobQueue
@testable import OperatorTools

/// The operator commands remove control characters from mutated values in Redis. `SLUICE_FUZZ_INPUTS` (300) and `SLUICE_FUZZ_SEED` (1)
/// select the inputs.
@Suite("Output of values from Redis", .serialized, .cpuBound)
struct RedisTextFuzzTests {
    private static let record = [
        "state": "running", "model": "m", "class": "standard", "owner": "t", "attempt": "2", "submitted_ms": "1763800000000",
        "claimed_ms": "1763800000100", "worker": "w1", "code": "internal", "reason": "stop",
    ]

    private func isClean(_ text: String) -> Bool { !text.unicodeScalars.contains { $0.steersTerminal && $0 != "\n" && $0 != "\t" } }

    @Test func `no control characters reach the terminal`() async throws {
        let id = try #require(JobID("p0-1"))
        await Fuzz.run(300) { mutator, number in
            let failure = Failure(.internal, mutator.text("message"))
            let event = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .failed(failure, .none))
            let started = LoggedEvent(
                id: EventID(attempt: 1, sequence: 0), event: .started(worker: mutator.text("w"), attempt: mutator.below(3)))
            let record = JobRecord(fields: mutator.fields(Self.record))
            let story = JobStory(id: id, record: record, events: [started, event], interrupt: nil)
            var table = TextTable(header: ["A"])
            table.add(JobList.Item(id: mutator.text("p0-1"), record: record).cells)
            var fields = Dictionary(uniqueKeysWithValues: WorkerReport().fields.map { ($0.name, $0.value) })
            fields["slowest"] = #"[{"id":"a","submitted_ms":1,"model":\#(JSON.string(mutator.text("m")).text)}]"#
            var snapshot = DeploymentSnapshot(milliseconds: 1_763_800_000_000)
            let report = WorkerReport(worker: "w", fields: mutator.fields(fields))
            snapshot.workers.append(.init(name: mutator.text("worker"), report: report))
            let model = mutator.text("m")
            let letter: [RESPValue] = [
                "code", mutator.text("internal"), "message", mutator.text("no"), "crashes", mutator.text("3"), "job", model,
            ]
            .map { .simple($0) }
            let dead = DeadLetter(partition: 0, .array([.simple(mutator.text("17638-0")), .array(letter)]))
            table.add(dead?.cells ?? [])
            for text in [
                story.text, table.text, snapshot.text, TopFrame.text(snapshot, place: "redis"), StandardOutput.escaped(story.json.text),
                StandardOutput.escaped(snapshot.json.text), StandardOutput.escaped(dead?.json.text ?? ""),
                Terminal.printable(mutator.text("answer\n"), keepingLines: true),
            ] {
                Fuzz.check(isClean(text), number)
            }
        }
    }
}
