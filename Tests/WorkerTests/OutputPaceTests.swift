import Testing

@testable import Worker

@Suite struct OutputPaceTests {
    private let millisecond: UInt64 = 1_000_000

    @Test func `the interval grows with the token rate up to its maximum`() {
        var pace = OutputPace()
        var now: UInt64 = 1_000 * millisecond
        func interval(tokensPerSecond: Int) -> UInt64 {
            pace.advance(to: now)
            pace.count(tokensPerSecond / 10)
            now += 100 * millisecond
            pace.advance(to: now)
            return pace.interval
        }
        #expect(interval(tokensPerSecond: 40_000) == 0)
        #expect(interval(tokensPerSecond: 80_000) == 10 * millisecond)
        #expect(interval(tokensPerSecond: 120_000) == OutputPace.longest)
        #expect(interval(tokensPerSecond: 1_000_000) == OutputPace.longest)
        #expect(interval(tokensPerSecond: 100) == 0, "returns to 0 at a low rate")
        #expect(OutputPace.longest <= 25 * millisecond, "a reader would notice more")
    }

    @Test func `the interval does not change within a window`() {
        var pace = OutputPace()
        pace.advance(to: 1_000 * millisecond)
        pace.count(1_000_000)
        pace.advance(to: 1_050 * millisecond)
        #expect(pace.interval == 0)
    }
}

/// When the output of generations is written.
@Suite struct OutputScheduleTests {
    private final class Output: ScheduledOutput {
        var isScheduled = false
        var isUrgent = false
    }

    private let millisecond: UInt64 = 1_000_000
    private let start: UInt64 = 10_000_000_000

    /// Sends what is due.
    private func write(_ schedule: inout OutputSchedule<Output>, at now: UInt64) -> Int {
        let due = schedule.beginBatch(at: now)
        for output in due { output.isScheduled = false }
        schedule.sent()
        return due.count
    }

    @Test func `without a batch under way a token is written at once`() {
        var schedule = OutputSchedule<Output>()
        let output = Output()
        for step in 0..<3 {
            let now = start + UInt64(step) * 10_000
            #expect(schedule.add(output, now: now) == .writeAtEndOfTurn)
            #expect(write(&schedule, at: now) == 1)
            #expect(schedule.answered() == .none)
        }
    }

    @Test func `tokens wait for the reply to the last batch, for a bounded time`() {
        var schedule = OutputSchedule<Output>()
        let (first, second, third) = (Output(), Output(), Output())
        #expect(schedule.add(first, now: start) == .writeAtEndOfTurn)
        #expect(write(&schedule, at: start) == 1)
        #expect(schedule.add(second, now: start + 100_000) == .writeAfter(nanoseconds: OutputSchedule<Output>.replyWait - 100_000))
        #expect(schedule.add(third, now: start + 200_000) == .none)
        #expect(schedule.add(second, now: start + 300_000) == .none)
        #expect(schedule.answered() == .writeAtEndOfTurn)
        #expect(write(&schedule, at: start + 400_000) == 2)
        // Without a reply.
        #expect(schedule.add(first, now: start + 400_000 + millisecond) == .writeAtEndOfTurn)
    }

    @Test func `first tokens and ends do not wait`() {
        var schedule = OutputSchedule<Output>()
        let (first, second) = (Output(), Output())
        #expect(schedule.add(first, now: start) == .writeAtEndOfTurn)
        #expect(write(&schedule, at: start) == 1)
        guard case .writeAfter = schedule.add(first, now: start) else {
            Issue.record("not delayed")
            return
        }
        second.isUrgent = true
        #expect(schedule.add(second, now: start) == .writeAtEndOfTurn)
        #expect(write(&schedule, at: start) == 2)
        // An output that waits becomes urgent.
        guard case .writeAfter = schedule.add(first, now: start) else {
            Issue.record("not delayed")
            return
        }
        first.isUrgent = true
        #expect(schedule.add(first, now: start) == .writeAtEndOfTurn)
        #expect(write(&schedule, at: start) == 1)
    }

    @Test func `at a high rate batches have a minimum interval, whatever Redis replies`() {
        var schedule = OutputSchedule<Output>()
        let output = Output()
        _ = schedule.beginBatch(at: start)
        schedule.count(8_000)
        let now = start + 100 * millisecond
        _ = schedule.beginBatch(at: now)
        schedule.sent()
        #expect(schedule.add(output, now: now + millisecond) == .writeAfter(nanoseconds: 9 * millisecond))
        #expect(schedule.answered() == .none)
        #expect(write(&schedule, at: now + 10 * millisecond) == 1)
    }
}
