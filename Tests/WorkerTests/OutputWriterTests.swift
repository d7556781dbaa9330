import Contract
import NIOCore
import RedisClient
import Testing

@testable import JobQueue
@testable import Worker

@Suite struct OutputWriterTests {
    private static let done = GenerationEvent.finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false))
    private let added = RESPValue.simple("1-1")

    private func writer() throws -> OutputWriter {
        let job = try Job(parsing: Array(#"{"id":"a","request":{"messages":[{"role":"user","content":"hi"}]}}"#.utf8))
        let entry = QueueEntry(partition: 0, priority: .standard, id: "1-1", job: nil)
        let claim = Claim(job: job, entry: entry, attempt: 1, crashes: 0, claimedMilliseconds: 0, earlierUsage: nil)
        return OutputWriter(claim, settings: QueueSettings())
    }

    private func write(_ writer: inout OutputWriter, now: UInt64 = 1) -> (part: OutputWriter.Part, commands: Int) {
        var pipeline = RedisPipeline()
        let part = writer.write(
            to: &pipeline, now: now, progress: JobProgress())
        return (part, pipeline.count)
    }

    @Test func `events and the terminal event share one write`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        let (part, commands) = write(&writer)
        #expect(commands == 3, "XADD, PUBLISH, the finish script")
        #expect(writer.answered(part, [added, .integer(1), .integer(1)]) == .ended)
    }

    @Test func `events collected during a write precede the terminal event`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        let first = write(&writer).part
        writer.append(.text("b"))
        writer.end(Self.done)
        #expect(write(&writer).commands == 0, "one write at a time")
        #expect(writer.answered(first, [added, .integer(1)]) == .written)
        #expect(write(&writer).commands == 3)
    }

    /// The job was not taken over: it ended with the event of this attempt.
    @Test func `a terminal event whose reply was lost ends the job`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        #expect(writer.lost() == .unsettled)
        #expect(writer.settled(newest: EventID(attempt: 1, sequence: 2)) == .ended)
    }

    @Test func `a failed terminal event is written again with the missing events`() throws {
        var writer = try writer()
        writer.append(.text("a"))
        writer.end(Self.done)
        _ = write(&writer)
        _ = writer.lost()
        #expect(writer.settled(newest: EventID(attempt: 1, sequence: 0)) == .written)
        #expect(write(&writer).commands == 3)
        _ = writer.lost()
        #expect(writer.settled(newest: EventID(attempt: 1, sequence: 1)) == .written)
        let (part, commands) = write(&writer)
        #expect(commands == 1, "the event is in the log: only the terminal event")
        #expect(writer.answered(part, [.integer(1)]) == .ended)
    }

    @Test func `a newer attempt or a missing log ends this attempt`() throws {
        for newest in [EventID(attempt: 2, sequence: 0), nil] {
            var writer = try writer()
            writer.append(.text("a"))
            let part = write(&writer).part
            #expect(writer.answered(part, [.error("ERR The ID specified in XADD is equal or smaller"), .integer(0)]) == .unsettled)
            #expect(writer.troubles == 1)
            #expect(writer.settled(newest: newest) == .endedElsewhere)
        }
    }

    @Test func `a script that is not loaded is sent in full`() throws {
        var writer = try writer()
        writer.end(Self.done)
        let part = write(&writer).part
        #expect(writer.answered(part, [.error("NOSCRIPT No matching script")]) == .written)
        var pipeline = RedisPipeline()
        _ = writer.write(
            to: &pipeline, now: 1, progress: JobProgress())
        #expect(String(decoding: pipeline.buffer.readableBytesView, as: UTF8.self).contains("\r\nEVAL\r\n"))
    }
}
