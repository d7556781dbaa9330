import Contract
import JobQueue
import Testing

@testable import Worker

@Suite struct OutputLogTests {
    private func ids(_ events: [(id: EventID, json: [UInt8])]) -> [String] { events.map(\.id.description) }
    private func texts(_ events: [(id: EventID, json: [UInt8])]) -> [String] {
        events.compactMap { event in
            guard case .text(let text) = try? LoggedEvent(parsing: event.json).event else { return nil }
            return text
        }
    }

    @Test func `collects events during a write and merges text`() {
        var log = OutputLog(attempt: 1)
        log.append(.upstream(name: "u", model: "m"))
        log.append(.text("a"))
        #expect(ids(log.beginWrite()) == ["1-1", "1-2"])
        log.append(.text("b"))
        log.append(.text("c"))
        log.append(.reasoning("r"))
        log.append(.text("d"))
        #expect(log.beginWrite().isEmpty == true, "one write at a time")
        log.confirmWrite()
        let second = log.beginWrite()
        #expect(ids(second) == ["1-3", "1-4", "1-5"])
        #expect(texts(second) == ["bc", "d"])
        log.confirmWrite()
        #expect(log.isEmpty && log.unwrittenBytes == 0)
        #expect(log.written == EventID(attempt: 1, sequence: 5))
    }

    @Test func `a write that succeeded without a reply is not repeated`() {
        var log = OutputLog(attempt: 2)
        log.append(.text("a"))
        _ = log.beginWrite()
        log.replyLost()
        log.append(.text("b"))
        #expect(!log.canWrite)
        #expect(log.reconcile(newest: EventID(attempt: 2, sequence: 1)) == .matches)
        #expect(texts(log.beginWrite()) == ["b"])
    }

    @Test func `a failed write is repeated unchanged`() {
        var log = OutputLog(attempt: 1)
        log.append(.upstream(name: "u", model: "m"))
        log.append(.text("a"))
        let first = log.beginWrite()
        log.replyLost()
        log.append(.text("b"))
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 1)) == .matches)
        let again = log.beginWrite()
        #expect(ids(again) == ["1-2"] && again[0].json == first[1].json)
        log.confirmWrite()
        #expect(ids(log.beginWrite()) == ["1-3"])
    }

    @Test func `events behind a repeated write are written next`() {
        var output = OutputLog(attempt: 1)
        output.append(.text("a"))
        _ = output.beginWrite()
        output.replyLost()
        output.append(.text("b"))
        let isOurs = output.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .matches
        #expect(isOurs && output.canWrite)
        #expect(output.beginWrite().count == 1)
        // A terminal event written now would leave this event out.
        #expect(output.hasPending)
        output.confirmWrite()
        #expect(output.beginWrite().count == 1 && !output.hasPending)
    }

    /// A reconnect lets several comparisons run: one of them may be answered while the repeated write waits for its reply.
    @Test func `a comparison during a write does not hide later output`() {
        var output = OutputLog(attempt: 1)
        output.append(.text("a"))
        _ = output.beginWrite()
        output.replyLost()
        output.append(.text("b"))
        #expect(output.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .matches)
        #expect(texts(output.beginWrite()) == ["a"])
        #expect(output.isAwaitingReply && output.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .matches)
        #expect(!output.canWrite, "the reply decides whether it is written again")
        output.confirmWrite()
        #expect(texts(output.beginWrite()) == ["b"])
        output.confirmWrite()
        #expect(output.isEmpty && output.written == EventID(attempt: 1, sequence: 2))
    }

    @Test func `a newer attempt or a missing log ends the output`() {
        var log = OutputLog(attempt: 1)
        log.append(.text("a"))
        _ = log.beginWrite()
        log.replyLost()
        #expect(log.reconcile(newest: EventID(attempt: 2, sequence: 0)) == .superseded)
        #expect(log.reconcile(newest: nil) == .outdated)
    }

    @Test func `a log with events of this attempt that nobody here has written is outdated`() {
        var log = OutputLog(attempt: 1)
        log.append(.text("a"))
        _ = log.beginWrite()
        log.replyLost()
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 2)) == .outdated)
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 1)) == .matches && log.isEmpty)
    }

    /// Redis has come back without its last writes.
    @Test func `acknowledged events that the log has lost are written again`() {
        var log = OutputLog(attempt: 1)
        var written: [(id: EventID, json: [UInt8])] = []
        for text in ["a", "b", "c"] {
            log.append(.text(text))
            written += log.beginWrite()
            log.confirmWrite()
        }
        log.append(.text("d"))
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 1)) == .matches)
        let again = log.beginWrite()
        #expect(ids(again) == ["1-2", "1-3"] && again.map(\.json) == written.dropFirst().map(\.json))
        log.confirmWrite()
        let next = log.beginWrite()
        #expect(ids(next) == ["1-4"] && texts(next) == ["d"])
        log.confirmWrite()
        #expect(log.isEmpty && log.unwrittenBytes == 0)
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .matches, "still known")
    }

    @Test func `events are written again behind those of a lost write`() {
        var log = OutputLog(attempt: 1)
        log.append(.text("a"))
        _ = log.beginWrite()
        log.confirmWrite()
        log.append(.text("b"))
        _ = log.beginWrite()
        log.replyLost()
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .matches)
        #expect(texts(log.beginWrite()) == ["a", "b"])
    }

    @Test func `a log that has lost more than is known is outdated`() {
        var log = OutputLog(attempt: 1)
        let piece = String(repeating: "x", count: 1_000)
        for _ in 0..<100 {
            log.append(.text(piece))
            _ = log.beginWrite()
            log.confirmWrite()
        }
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 0)) == .outdated)
        #expect(log.reconcile(newest: EventID(attempt: 1, sequence: 90)) == .matches)
        var silent = OutputLog(attempt: 3)
        #expect(silent.reconcile(newest: EventID(attempt: 2, sequence: 7)) == .outdated, "the event of the claim is missing")
    }

    @Test func `dropped events leave no gap in the ids`() {
        var log = OutputLog(attempt: 1)
        log.append(.text("a"))
        _ = log.beginWrite()
        log.append(.text("unseen"))
        log.dropPending()
        log.confirmWrite()
        #expect(log.beginWrite().isEmpty == true)
        #expect(log.unwrittenBytes == 0)
        #expect(log.newest.next == EventID(attempt: 1, sequence: 2))
    }

    /// Small events count for the limit of unwritten bytes, and many of them are settled in one pass.
    @Test func `many small events count for the limit`() {
        var log = OutputLog(attempt: 1)
        for number in 0..<50_000 { log.append(number % 2 == 0 ? .text("a") : .reasoning("b")) }
        #expect(log.unwrittenBytes > 50_000 * 64)
        let events = log.beginWrite()
        #expect(events.count == 50_000)
        log.replyLost()
        let isOurs = log.reconcile(newest: EventID(attempt: 1, sequence: 49_999)) == .matches
        let repeated = log.beginWrite()
        #expect(isOurs && ids(repeated) == ["1-50000"])
        log.confirmWrite()
        #expect(log.unwrittenBytes == 0 && log.isEmpty)
    }

    @Test func `text is appended without copying`() {
        var log = OutputLog(attempt: 1)
        for _ in 0..<500_000 { log.append(.text("abcd")) }
        #expect(log.unwrittenBytes == 2_000_064)
        let events = log.beginWrite()
        #expect(events.count == 1 && events[0].json.count > 2_000_000)
    }
}

/// The acknowledged events that can be written again.
@Suite struct RecentEventsTests {
    private static func id(_ sequence: Int, attempt: Int = 1) -> EventID { EventID(attempt: attempt, sequence: sequence) }
    private static func json(_ number: Int, size: Int = 4) -> [UInt8] { [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size) }

    @Test func `events after one that Redis still has are returned in order, once`() {
        var recent = RecentEvents()
        for number in 1...5 { recent.append(Self.id(number), Self.json(number, size: number)) }
        let removed = recent.remove(after: Self.id(3))
        #expect(removed?.map(\.id) == [Self.id(4), Self.id(5)] && removed?.map(\.json) == [Self.json(4, size: 4), Self.json(5, size: 5)])
        #expect(recent.remove(after: Self.id(3)) == nil && recent.count == 3)
        recent.append(Self.id(4), Self.json(9))
        #expect(recent.remove(after: Self.id(0))?.map(\.json).map(\.first) == [1, 2, 3, 9])
    }

    @Test func `the oldest events leave, and a gap or an oversized event replaces all`() {
        var recent = RecentEvents()
        let size = RecentEvents.maximumBytes / 4
        for number in 1...6 { recent.append(Self.id(number), Self.json(number, size: size)) }
        #expect(recent.count == 4 && recent.remove(after: Self.id(1)) == nil)
        #expect(recent.remove(after: Self.id(2))?.map(\.id.sequence) == [3, 4, 5, 6])
        for sequence in [7, 8, 10] { recent.append(Self.id(sequence), Self.json(0)) }
        #expect(recent.remove(after: Self.id(7)) == nil && recent.remove(after: Self.id(9))?.count == 1)
        recent.append(Self.id(11), Self.json(0))
        recent.append(Self.id(12), Self.json(0, size: RecentEvents.maximumBytes + 1))
        #expect(recent.count == 0 && recent.remove(after: Self.id(11)) == nil)
        recent.append(Self.id(1, attempt: 2), Self.json(0))
        // Ids from Redis may be anything.
        for id in [Self.id(.max), Self.id(0, attempt: .max), Self.id(1, attempt: 2)] { #expect(recent.remove(after: id) == nil) }
        #expect(recent.remove(after: Self.id(0, attempt: 2))?.count == 1)
    }
}
