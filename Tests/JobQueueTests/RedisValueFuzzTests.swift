import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support
import TestSupport
import Testing

@testable import JobQueue

/// Fuzzes all values that nodes read from Redis. A trap ends the test process; accepted values must be in range. `SLUICE_FUZZ_INPUTS`
/// (default 1,000) and `SLUICE_FUZZ_SEED` (default 1) select the inputs.
@Suite(.serialized, .cpuBound)
struct RedisValueFuzzTests {
    private static let job = #"""
        {"id":"p0-01ARZ3NDEKTSV4RRFFQ69G5FAV","session":"p0-S","owner":"tenant-a","class":"interactive","request":{"model":"m","messages":
        [{"role":"user","content":"hi"}],"temperature":0.7},"speech":{"model":"t","voice":"v","format":"pcm"},"deadline_ms":1763800000000,
        "first_token_timeout_ms":15000,"idle_timeout_ms":30000,"total_timeout_ms":600000,"on_crash":"restart","retry_of":"p0-old"}
        """#
    private static let usage = Usage(promptTokens: 22, completionTokens: 382, estimated: true)
    private static let events: [JSON] = [
        .started(worker: "w1", attempt: 3), .resumed(textOffset: 17), .restarted, .upstream(name: "u", model: "m"), .text("hello"),
        .reasoning("because"), .toolCall(ToolCall(index: 1, callID: "c", name: "n", arguments: "{}")),
        .audio(Audio(index: 3, format: "pcm", data: "AAE=", last: false, textOffset: 5, textFinish: .length)), .finished(.stop, usage),
        .interrupted(
            Interruption(
                reason: "USER_STOP", phase: .streaming, usage: usage, latencyMicroseconds: 250, deliveredTokens: 4, savedTokens: 93)),
        .failed(Failure(.overloaded, "no", upstreamStatus: 529), usage),
    ].enumerated().compactMap { number, event in
        try? JSON(parsing: LoggedEvent(id: EventID(attempt: 1, sequence: number), event: event).json)
    }
    private static let record = [
        "state": "running", "model": "m", "class": "standard", "owner": "t", "attempt": "2", "crashes": "0",
        "submitted_ms": "1763800000000",
        "claimed_ms": "1763800000100", "worker": "w1", "usage": usage.json.text, "token": "x", "entry": "1-0", "reason": "stop",
    ]
    private static let heartbeat = {
        var report = WorkerReport()
        report.capacity = 64
        report.tokensPerSecond = 12.5
        report.queueWait.record(microseconds: 500)
        report.slowest = [
            RunningJob(
                id: "p0-1", priority: "standard", model: "m", phase: "streaming", upstream: "u", attempt: 1, tokens: 10,
                submittedMilliseconds: 1_763_800_000_000)
        ]
        return Dictionary(uniqueKeysWithValues: report.fields.map { ($0.name, $0.value) })
    }()
    /// A hash reply with numbers from outside.
    private static let counts = 0...Int.maximumExact

    private static func hash(_ fields: [String: String]) -> RESPValue {
        .array(fields.sorted { $0.key < $1.key }.flatMap { [.bulk(ByteBuffer(string: $0)), .bulk(ByteBuffer(string: $1))] })
    }

    @Test func `jobs are read or refused`() async throws {
        let sample = try JSON(parsing: Self.job)
        var read = 0
        await Fuzz.run(400) { mutator, number in
            guard let job = try? Job(parsing: mutator.json(sample)) else { return }
            read += 1
            let names = [job.id.rawValue, job.session, job.owner, job.retryOf].compactMap { $0?.utf8.count }
            Fuzz.check(names.allSatisfy { $0 <= 128 } && job.model?.utf8.count ?? 0 <= 256, number)
            Fuzz.check((try? Job(parsing: job.json.bytes)) == job, number)
        }
        #expect(read > Fuzz.inputs(400) / 20)
    }

    @Test func `events are read or refused, and pass through the sequence`() async {
        var read = 0
        await Fuzz.run(400) { mutator, number in
            let samples = (0..<4).map { _ in mutator.pick(Self.events) }
            let text = "[" + samples.map { String(decoding: mutator.json($0), as: UTF8.self) }.joined(separator: ",") + "]"
            let bytes = Array((mutator.oneIn(2) ? text : JSON.array(samples).text).utf8)
            guard let events = try? LoggedEvent.array(parsing: bytes.span) else { return }
            read += 1
            for event in events {
                Fuzz.check(Self.counts.contains(event.id.attempt) && Self.counts.contains(event.id.sequence), number)
                Fuzz.check((try? LoggedEvent(parsing: event.json)) == event, number)
            }
            var sequence = EventSequence(after: mutator.oneIn(2) ? nil : events.first?.id)
            for event in events {
                if case .fill = sequence.offer([event]) { _ = sequence.filled(mutator.oneIn(2) ? events : []) }
            }
            _ = sequence.offer(events)
            _ = sequence.lost()
            let story = JobStory(id: QueueFixture.job().id, record: nil, events: events, interrupt: nil)
            Fuzz.check(!story.json.bytes.isEmpty, number)
        }
        #expect(read > Fuzz.inputs(400) / 20)
    }

    @Test func `ids, interrupts and usage are read or refused`() async {
        await Fuzz.run(400) { mutator, number in
            if let id = EventID(mutator.text("12-345")) {
                Fuzz.check(Self.counts.contains(id.attempt) && id.next > id && id.nextAttempt > id, number)
            }
            if let interrupt = Interrupt(parsing: mutator.json(["id": "p0-1", "reason": "USER_NEW_INPUT"])) {
                Fuzz.check(Interrupt.isReason(interrupt.reason) && Interrupt(parsing: interrupt.text.utf8) == interrupt, number)
            }
            if let json = try? JSON(parsing: mutator.json(Self.usage.json)), let usage = Usage(json) {
                let sum = (0..<4).reduce(usage) { sum, _ in sum + usage }
                Fuzz.check(sum.promptTokens >= 0 && Self.counts.contains(usage.completionTokens), number)
            }
            _ = JobID(mutator.text("p0-01ARZ3NDEKTSV4RRFFQ69G5FAV")).map { $0.partition(of: 3) }
            _ = TraceParent(mutator.text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
        }
    }

    @Test func `records and heartbeats are read`() async {
        await Fuzz.run(400) { mutator, number in
            if let record = JobRecord(Self.hash(mutator.fields(Self.record))) {
                Fuzz.check(Self.counts.contains(record.attempt) && Self.counts.contains(record.count("submitted_ms") ?? 0), number)
                Fuzz.check(!JobStory.json(id: "x", record: record).bytes.isEmpty && record.usage?.promptTokens ?? 0 >= 0, number)
            }
            var snapshot = DeploymentSnapshot(milliseconds: 1_763_800_000_000)
            for name in ["w1", "w2"] {
                var fields = mutator.fields(Self.heartbeat)
                if let slowest = try? JSON(parsing: Self.heartbeat["slowest"] ?? "") {
                    fields["slowest"] = String(decoding: mutator.json(slowest), as: UTF8.self)
                }
                snapshot.workers.append(.init(name: name, report: WorkerReport(worker: name, fields: fields)))
                snapshot.gateways.append(.init(name: name, fields: mutator.fields(Self.heartbeat)))
            }
            let json = snapshot.json.bytes
            Fuzz.check((try? JSON(parsing: json)) != nil && json.count < 64 << 10, number)
        }
    }
}
