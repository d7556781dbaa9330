import Contract
import Testing

@testable import JobQueue

@Suite struct EventSequenceTests {
    private static func text(_ attempt: Int, _ sequence: Int) -> LoggedEvent {
        LoggedEvent(id: EventID(attempt: attempt, sequence: sequence), event: .text("\(attempt)-\(sequence)"))
    }
    private static func end(_ attempt: Int, _ sequence: Int) -> LoggedEvent {
        LoggedEvent(id: EventID(attempt: attempt, sequence: sequence), event: .finished(.stop, .none))
    }
    private func ids(_ action: EventSequence.Action) -> [String]? {
        guard case .deliver(let events) = action else { return nil }
        return events.map(\.id.description)
    }

    @Test func `delivers consecutive events`() {
        var sequence = EventSequence(after: nil)
        #expect(ids(sequence.offer([Self.text(1, 0)])) == ["1-0"])
        #expect(ids(sequence.offer([Self.text(1, 1), Self.text(1, 2)])) == ["1-1", "1-2"])
        #expect(sequence.last == EventID(attempt: 1, sequence: 2))
    }

    @Test func `drops known events`() {
        var sequence = EventSequence(after: EventID(attempt: 1, sequence: 4))
        #expect(ids(sequence.offer([Self.text(1, 3), Self.text(1, 4)])) == [])
        #expect(ids(sequence.offer([Self.text(1, 4), Self.text(1, 5)])) == ["1-5"])
    }

    @Test func `drops events of an older attempt`() {
        var sequence = EventSequence(after: EventID(attempt: 2, sequence: 1))
        #expect(ids(sequence.offer([Self.text(1, 9), Self.end(1, 10)])) == [])
        #expect(!sequence.ended)
    }

    @Test func `fills a gap before continuing`() {
        var sequence = EventSequence(after: nil)
        _ = sequence.offer([Self.text(1, 0)])
        #expect(sequence.offer([Self.text(1, 3)]) == .fill(after: EventID(attempt: 1, sequence: 0)))
        #expect(ids(sequence.offer([Self.text(1, 4)])) == [])
        let filled = sequence.filled([Self.text(1, 1), Self.text(1, 2), Self.text(1, 3)])
        #expect(filled.map(\.id.description) == ["1-1", "1-2", "1-3", "1-4"])
    }

    @Test func `a new attempt is read from the log`() {
        // The last message of the older attempt may be lost without a trace.
        var sequence = EventSequence(after: EventID(attempt: 1, sequence: 5))
        #expect(sequence.offer([Self.text(2, 0)]) == .fill(after: EventID(attempt: 1, sequence: 5)))
        #expect(sequence.filled([Self.text(1, 6), Self.text(2, 0)]).map(\.id.description) == ["1-6", "2-0"])
    }

    @Test func `a fenced attempt is dropped while a newer one is held`() {
        var sequence = EventSequence(after: nil)
        _ = sequence.suspect()
        // During the log read a new attempt starts, and the older one publishes an event that the log has refused.
        _ = sequence.offer([Self.text(2, 0)])
        _ = sequence.offer([Self.text(1, 1)])
        #expect(sequence.filled([Self.text(1, 0)]).map(\.id.description) == ["1-0"])
        #expect(sequence.hasGap)
        _ = sequence.suspect()
        #expect(sequence.filled([Self.text(2, 0)]).map(\.id.description) == ["2-0"] && !sequence.hasGap)
    }

    @Test func `delivers nothing after the terminal event`() {
        var sequence = EventSequence(after: nil)
        #expect(ids(sequence.offer([Self.text(1, 0), Self.end(1, 1), Self.text(1, 2)])) == ["1-0", "1-1"])
        #expect(sequence.ended)
        #expect(ids(sequence.offer([Self.text(1, 2)])) == [])
        #expect(ids(sequence.suspect()) == [])
    }

    /// A sequence that has shown two events of attempt 1, after a reconnect.
    private static func reconnected() -> EventSequence {
        var sequence = EventSequence(after: nil)
        _ = sequence.offer([text(1, 0), text(1, 1)])
        sequence.compareFirst()
        return sequence
    }

    @Test func `after a reconnect the log is compared with what was delivered`() {
        var sequence = Self.reconnected()
        #expect(sequence.offer([Self.text(1, 2)]) == .fill(after: EventID(attempt: 1, sequence: 1)))
        #expect(sequence.compare(logged: Self.text(1, 1), reached: EventID(attempt: 1, sequence: 1)) == .continued)
        #expect(sequence.filled([Self.text(1, 2)]).map(\.id.description) == ["1-2"])
        #expect(ids(sequence.offer([Self.text(1, 3)])) == ["1-3"])
    }

    @Test func `nothing is delivered while the log is behind what was delivered`() {
        var sequence = Self.reconnected()
        #expect(sequence.compare(logged: nil, reached: nil) == .behind)
        #expect(sequence.offer([Self.text(1, 1), Self.text(1, 2)]) == .fill(after: EventID(attempt: 1, sequence: 1)))
    }

    @Test func `of another history with the same ids only the next attempt is delivered`() {
        let other = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .text("other"))
        var sequence = Self.reconnected()
        #expect(sequence.compare(logged: other, reached: EventID(attempt: 1, sequence: 1)) == .rewritten)
        #expect(ids(sequence.offer([Self.text(1, 6)])) == [])
        guard case .fill = sequence.offer([Self.text(2, 0)]) else {
            Issue.record("the log is not read")
            return
        }
        #expect(sequence.filled([Self.text(2, 0), Self.text(2, 1)]).map(\.id.description) == ["2-0", "2-1"])
        sequence = Self.reconnected()
        #expect(sequence.compare(logged: nil, reached: EventID(attempt: 2, sequence: 0)) == .continued)
        _ = sequence.suspect()
        #expect(sequence.filled([Self.text(1, 2), Self.text(2, 0)]).map(\.id.description) == ["2-0"])
    }

    @Test func `an end of another history that is shorter than what was delivered is a failure`() {
        var sequence = Self.reconnected()
        #expect(sequence.end(with: Self.end(1, 2)).isEmpty)
        _ = sequence.compare(logged: Self.text(1, 1), reached: EventID(attempt: 1, sequence: 1))
        _ = sequence.offer([Self.text(1, 2)])
        let events = sequence.end(with: Self.end(1, 1))
        #expect(events.map(\.event.type) == ["failed"] && sequence.ended)
        sequence = Self.reconnected()
        #expect(sequence.end(with: Self.end(1, 1)).map(\.event.type) == ["failed"] && sequence.ended)
    }

    @Test func `an end with an older id gets one above those that the reader has`() {
        func interrupted(_ attempt: Int, _ sequence: Int) -> LoggedEvent {
            let interruption = Interruption(reason: "USER_STOP", phase: .queued, usage: .none)
            return LoggedEvent(id: EventID(attempt: attempt, sequence: sequence), event: .interrupted(interruption))
        }
        // Shown 1-1; the job was then interrupted while it waited again.
        for end in [interrupted(1, 0), interrupted(1, 1)] {
            var sequence = Self.reconnected()
            #expect(sequence.end(with: end).map(\.id.description) == ["2-0"] && sequence.ended)
        }
        // A reader that brings the id of the end may have it already; one that brings a later id has another history.
        var sequence = EventSequence(after: EventID(attempt: 1, sequence: 5))
        #expect(sequence.end(with: interrupted(1, 5)).map(\.id.description) == ["1-5"])
        sequence = EventSequence(after: EventID(attempt: 1, sequence: 6))
        #expect(sequence.end(with: interrupted(1, 5)).map(\.id.description) == ["2-0"])
    }

    @Test func `only an end contradicts the first event of an attempt`() {
        func started(_ worker: String) -> LoggedEvent {
            LoggedEvent(id: EventID(attempt: 1, sequence: 0), event: .started(worker: worker, attempt: 1))
        }
        var sequence = EventSequence(after: nil)
        _ = sequence.offer([started("w1")])
        sequence.compareFirst()
        #expect(sequence.compare(logged: nil, reached: nil) == .behind)
        #expect(sequence.compare(logged: started("w2"), reached: EventID(attempt: 1, sequence: 0)) == .continued)
        #expect(ids(sequence.offer([Self.text(1, 1)])) == ["1-1"])
        sequence = EventSequence(after: nil)
        _ = sequence.offer([started("w1")])
        sequence.compareFirst()
        #expect(sequence.compare(logged: Self.end(1, 0), reached: EventID(attempt: 1, sequence: 0)) == .rewritten)
    }

    @Test func `a failed log read is repeated`() {
        var sequence = EventSequence(after: nil)
        #expect(sequence.offer([Self.text(1, 2)]) == .fill(after: nil))
        sequence.fillFailed()
        #expect(sequence.offer([Self.text(1, 3)]) == .fill(after: nil))
    }

    @Test func `the number of held events is bounded`() {
        var sequence = EventSequence(after: nil)
        _ = sequence.suspect()
        for index in 0..<5_000 { _ = sequence.offer([Self.text(1, index)]) }
        // More than fit: they were dropped, and the log must be read again.
        let passed = sequence.filled([Self.text(1, 0)])
        #expect(passed.map(\.id.description) == ["1-0"] && sequence.hasGap)
    }

    @Test func `the largest ids do not overflow`() throws {
        let largest = try #require(EventID("9007199254740991-9007199254740991"))
        var sequence = EventSequence(after: largest)
        #expect(ids(sequence.offer([Self.text(1, 0)])) == [])
        #expect(ids(sequence.offer([LoggedEvent(id: largest, event: .text("again"))])) == [])
        let lost = sequence.lost()
        #expect(lost.count == 1 && lost[0].id == largest.nextAttempt)
        var beyond = EventSequence(after: EventID(attempt: .max, sequence: .max))
        #expect(ids(beyond.offer([Self.text(1, 0)])) == [])
        #expect(beyond.lost().count == 1)
    }
}
