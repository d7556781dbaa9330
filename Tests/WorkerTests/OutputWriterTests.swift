import Contract
import NIOCore
import RedisClient
import Testing

@testable import JobQueue
@testable import Worker

@Suite struct OutputWriterTests {
    private static let done = GenerationEvent.finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false))

    private func writer() throws -> OutputWriter {
        let job = try Job(parsing: Array(#"{"id":"a","request":{"messages":[{"role":"user","content":"hi"}]}}"#.utf8))
        let entry = QueueEntry(partition: 0, priority: .standard, id: "1-1", job: nil)
        let claim = Claim(job: job, entry: entry, attempt: 1, crashes: 0, claimedMilliseconds: 0, earlierUsage: nil)
        return OutputWriter(claim, settings: QueueSettings())
    }

    /// The number of commands of the next write.
    private func write(_ writer: inout OutputWriter, now: UInt64 = 1) -> Int {
        var batch = OutputBatch()
        let part = writer.write(to: &batch, now: now, progress: JobProgress())
        #expect(part.commands == batch.pipeline.count)
        return part.commands
    }

    @Test func `events and the terminal event share one write`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        #expect(write(&writer) == 3, "XADD, PUBLISH, the finish script")
        #expect(writer.received(OutputReceipt(events: .written, ending: .ended)) == .ended)
    }

    @Test func `events collected during a write precede the terminal event`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        #expect(write(&writer) == 2)
        writer.append(.text("b"))
        writer.end(Self.done)
        #expect(write(&writer) == 0, "one write at a time")
        #expect(writer.received(OutputReceipt(events: .written)) == .written)
        #expect(write(&writer) == 3)
    }

    /// The job was not taken over: it ended with the event of this attempt.
    @Test func `a terminal event whose reply was lost ends the job`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        #expect(writer.replyLost() == .unconfirmed)
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 2)) == .ended)
    }

    @Test func `a failed terminal event is written again with the missing events`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        _ = writer.replyLost()
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .written)
        #expect(write(&writer) == 3)
        _ = writer.replyLost()
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 1)) == .written)
        #expect(write(&writer) == 1, "the event is in the log: only the terminal event")
        #expect(writer.received(OutputReceipt(ending: .ended)) == .ended)
    }

    @Test func `a newer attempt ends this attempt, and a log without it needs a new one`() throws {
        let others = [EventID(attempt: 2, sequence: 0), EventID(attempt: 1_796_047_844_025, sequence: 0), nil]
        for (newest, outcome) in zip(others, [OutputWriter.Outcome.endedElsewhere, .outdated, .outdated]) {
            var writer = try writer()
            writer.append(.text("a"))
            _ = write(&writer)
            #expect(writer.received(OutputReceipt(events: .refused)) == .unconfirmed)
            #expect(writer.failedWrites == 1)
            #expect(writer.reconcile(newest: newest) == outcome)
        }
    }

    @Test func `a refused terminal event leaves its events confirmed`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(events: .written, ending: .refused)) == .unconfirmed)
        #expect(writer.isEmpty && writer.failedWrites == 1)
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 1)) == .written)
        #expect(write(&writer) == 1)
    }

    private static let stopped = GenerationEvent.interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: .none))

    /// At `maxmemory` Redis refuses events, but not the finish script.
    @Test func `the end of an interrupted job does not wait for refused events`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(events: .refused)) == .unconfirmed)
        writer.end(Self.stopped)
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .written)
        var batch = OutputBatch()
        let part = writer.write(to: &batch, now: 1, progress: JobProgress())
        #expect(part.commands == 1, "only the finish script")
        #expect(Self.mayFollowAnything("1-2", batch), "behind what readers were shown")
    }

    /// Whether the end has this id and does not depend on the event before it: the argument is empty.
    private static func mayFollowAnything(_ id: String, _ batch: OutputBatch) -> Bool {
        let text = String(decoding: batch.pipeline.bytes, as: UTF8.self)
        return text.contains("\r\n\(id)\r\n") && text.contains("\r\n$0\r\n\r\n$3\r\n1-1\r\n")
    }

    /// A server that did not answer may execute a write later, the log was missing on another one, or another program has written to it.
    @Test(arguments: [(nil, 2), (1, 3), (0, 2), (2, 1), (nil, 90), (90, nil)] as [(Int?, Int?)])
    func `the end of an interrupted job follows the log, whatever was discarded`(_ first: Int?, _ second: Int?) throws {
        var writer = try writer()
        for text in ["a", "b"] {
            writer.append(.text(text))
            _ = write(&writer)
            #expect(writer.received(OutputReceipt(events: .written)) == .written)
        }
        writer.append(.text("c"))
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(events: .refused)) == .unconfirmed)
        writer.end(Self.stopped)
        #expect(writer.reconcile(newest: first.map { EventID(attempt: 1, sequence: $0) }) == .written)
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(ending: .refused)) == .unconfirmed)
        #expect(writer.reconcile(newest: second.map { EventID(attempt: 1, sequence: $0) }) == .written)
        var batch = OutputBatch()
        #expect(writer.write(to: &batch, now: 1, progress: JobProgress()).commands == 1, "only the finish script")
        #expect(Self.mayFollowAnything("1-4", batch))
    }

    /// Another program has raised the ids of the log.
    @Test(arguments: [false, true]) func `a log that takes no events needs a new attempt`(isInterrupted: Bool) throws {
        var writer = try writer()
        writer.append(.text("a"))
        var refused = OutputReceipt(events: .refused)
        refused.hasHigherID = true
        let start = EventID(attempt: 1, sequence: 0)
        for _ in 0..<2 {
            #expect(write(&writer) == 2)
            #expect(writer.received(refused) == .unconfirmed)
            #expect(writer.reconcile(newest: start) == .written, "the reply to a write may have been lost")
        }
        if isInterrupted { writer.end(Self.stopped) }
        _ = write(&writer)
        #expect(writer.received(refused) == .unconfirmed)
        #expect(writer.reconcile(newest: start) == (isInterrupted ? .written : .outdated))
        if isInterrupted { #expect(write(&writer) == 1, "only the finish script") }
    }

    /// Each repetition is refused as long as its first event is in the log.
    @Test func `refusals between which events were written need no new attempt`() throws {
        var writer = try writer()
        var refused = OutputReceipt(events: .refused)
        refused.hasHigherID = true
        for number in 1...9 {
            writer.append(.text("a"))
            _ = write(&writer)
            #expect(writer.received(refused) == .unconfirmed)
            #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: number)) == .written)
        }
    }

    /// Renewals overtake ends when a server that was frozen continues after its successor was promoted.
    @Test func `only a renewal that read the log on another connection shows whether Redis has lost an end`() {
        let log = LogState(newest: EventID(attempt: 1, sequence: 3))
        #expect(LeaseReport(answer: .kept, log: log).comparison(on: 2, endedOn: 1) == log)
        #expect(LeaseReport(answer: .lost, log: LogState()).comparison(on: 2, endedOn: 1) == LogState())
        #expect(LeaseReport(answer: .kept, log: log).comparison(on: 2, endedOn: 2) == nil, "sent before the job ended")
        #expect(LeaseReport(answer: .kept).comparison(on: 2, endedOn: 1) == nil)
    }

    @Test func `a finished job waits for its refused events`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(events: .refused, ending: .refused)) == .unconfirmed)
        #expect(writer.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .written)
        #expect(write(&writer) == 3)
    }

    @Test func `a script that is not loaded is sent in full`() throws {
        var writer = try writer()
        writer.end(Self.done)
        _ = write(&writer)
        #expect(writer.received(OutputReceipt(ending: .scriptMissing)) == .written)
        var batch = OutputBatch()
        _ = writer.write(to: &batch, now: 1, progress: JobProgress())
        #expect(String(decoding: batch.pipeline.bytes, as: UTF8.self).contains("\r\nEVAL\r\n"))
    }
}
