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
        #expect(interval(tokensPerSecond: 20_000) == 0)
        #expect(interval(tokensPerSecond: 30_000) == 50 * millisecond)
        #expect(interval(tokensPerSecond: 50_000) == OutputPace.longest)
        #expect(interval(tokensPerSecond: 1_000_000) == OutputPace.longest)
        #expect(interval(tokensPerSecond: 100) == 0, "returns to 0 at a low rate")
    }

    @Test func `the interval does not change within a window`() {
        var pace = OutputPace()
        pace.advance(to: 1_000 * millisecond)
        pace.count(1_000_000)
        pace.advance(to: 1_050 * millisecond)
        #expect(pace.interval == 0)
    }

    @Test func `deferred writes are released when due`() {
        var deferred = DeferredWrites<Int>()
        let start = 5_000 * millisecond
        for wait in 1...100 { deferred.add(wait, until: start + UInt64(wait) * millisecond, now: start) }
        #expect(deferred.count == 100)
        var out: [Int] = []
        deferred.release(at: start + 40 * millisecond + millisecond / 2) { out.append($0) }
        #expect(out == Array(1...40))
        deferred.release(at: start + 1_000 * millisecond) { out.append($0) }
        #expect(out == Array(1...100) && deferred.isEmpty)
    }

    @Test func `deferred writes work after a long idle time`() {
        var deferred = DeferredWrites<Int>()
        deferred.add(1, until: 10 * millisecond, now: 0)
        deferred.release(at: 20 * millisecond) { _ in }
        let later = 1_000_000 * millisecond
        deferred.add(2, until: later, now: later)
        deferred.add(3, until: later + 10_000 * millisecond, now: later)
        var out: [Int] = []
        deferred.release(at: later) { out.append($0) }
        #expect(out == [], "not before the next millisecond")
        deferred.release(at: later + millisecond) { out.append($0) }
        #expect(out == [2])
        deferred.release(at: later + 127 * millisecond) { out.append($0) }
        #expect(out == [2, 3], "not later than the last position")
    }
}
