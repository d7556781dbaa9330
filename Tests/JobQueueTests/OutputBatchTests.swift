import Contract
import RedisClient
import Testing

@testable import JobQueue

/// What the replies to a batch of output mean for each job in it.
@Suite struct OutputBatchTests {
    private static let added = RESPValue.simple("1-1")
    private static let published = RESPValue.integer(0)
    private static let refusal = RESPValue.error("ERR The ID specified in XADD is equal or smaller")

    /// Appends one job's events and, if so, its terminal event.
    private func append(_ count: Int, ends: Bool, to batch: inout OutputBatch) -> OutputBatch.Part {
        let entry = QueueEntry(partition: 0, priority: .standard, id: "1-1", job: nil)
        let settings = QueueSettings()
        let events = (0..<count).map { (id: EventID(attempt: 1, sequence: $0 + 1), json: Array("{}".utf8)) }
        let ending = OutputCommands.Ending(
            event: LoggedEvent(
                id: EventID(attempt: 1, sequence: count + 1),
                event: .finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false))),
            previous: EventID(attempt: 1, sequence: count), progress: JobProgress())
        return batch.append(
            events, ending: ends ? ending : nil, sendsScript: false,
            to: OutputCommands(QueueFixture.job().id, entry: entry, keys: settings.keys), entry: entry, settings: settings)
    }

    private func receipts(_ parts: [(events: Int, ends: Bool)], _ replies: [RESPValue]) -> [OutputReceipt] {
        var batch = OutputBatch()
        let parts = parts.map { append($0.events, ends: $0.ends, to: &batch) }
        #expect(parts.reduce(0) { $0 + $1.commands } == replies.count)
        var rest = OutputReplies(.success(replies))
        return parts.compactMap { rest?.next($0) }
    }

    @Test func `replies are matched to jobs by their number of commands`() {
        let receipts = receipts(
            [(1, false), (0, true), (2, true), (0, false)],
            [Self.added, Self.published, .integer(0), Self.added, Self.added, Self.published, .integer(1)])
        #expect(
            receipts == [
                OutputReceipt(events: .written), OutputReceipt(ending: .endedElsewhere), OutputReceipt(events: .written, ending: .ended),
                OutputReceipt(),
            ])
    }

    /// A null: the log does not exist.
    @Test(arguments: [Self.refusal, .null]) func `one refused event makes the events refused`(_ refusal: RESPValue) {
        let receipts = receipts([(2, false), (1, false)], [Self.added, refusal, Self.published, Self.added, Self.published])
        #expect(receipts.map(\.events) == [.refused, .written])
        #expect(receipts.map(\.hasHigherID) == [refusal == Self.refusal, false])
        #expect(!receipts[0].replies.isEmpty && receipts[1].replies.isEmpty)
    }

    @Test func `an error of PUBLISH does not concern the log`() {
        #expect(receipts([(1, false)], [Self.added, .error("OOM")]) == [OutputReceipt(events: .written)])
    }

    @Test(arguments: [
        (RESPValue.integer(1), OutputReceipt.Ending.ended), (.integer(0), .endedElsewhere), (.integer(7), .refused),
        (.error("OOM command not allowed"), .refused), (.error("NOSCRIPT No matching script"), .scriptMissing), (.null, .none),
    ])
    func `the finish script's reply tells whether the job ended`(_ reply: RESPValue, _ ending: OutputReceipt.Ending) {
        #expect(receipts([(0, true)], [reply]).map(\.ending) == [ending])
    }

    @Test func `a lost reply gives no receipts`() {
        let replies = OutputReplies(.failure(QueueError(.timeout, "no reply")))
        #expect(replies == nil)
    }
}
