import NIOCore
import Testing

@testable import RedisClient

struct CheckTimesTests {
    @Test(arguments: [TimeAmount.seconds(5), .milliseconds(7), .nanoseconds(1)])
    func `connections have their checks in common, one in each interval`(silence: TimeAmount) {
        let (one, other) = (CheckTimes(silence: silence), CheckTimes(silence: silence))
        #expect(one.interval == .nanoseconds(max(1, silence.nanoseconds / 2)))
        for start in [0, 1, 123_456_789, UInt64(Int64.max) / 2] {
            let first = one.next(after: .uptimeNanoseconds(start))
            #expect(first > .uptimeNanoseconds(start) && first <= .uptimeNanoseconds(start) + one.interval)
            #expect(one.next(after: first) == first + one.interval)
            #expect(other.next(after: first - .nanoseconds(1)) == first, "the same for another connection that asks later")
        }
    }

    @Test func `the checks of an idle connection are less than the silence apart from its last data`() {
        let checks = CheckTimes(silence: .seconds(5))
        for offset in 0..<50 {
            let lastReceived = NIODeadline.uptimeNanoseconds(UInt64(offset) * 100_000_000 + 1)
            let last = checks.next(after: lastReceived + .seconds(5) - checks.interval)
            #expect(last > lastReceived + .nanoseconds(2_500_000_000) && last <= lastReceived + .seconds(5))
        }
    }

    @Test func `work whose period is a multiple of the interval coincides with checks`() {
        let checks = CheckTimes(silence: .seconds(5))
        for start in [0, 1, 1_300_000_000, 77_777_777_777] as [UInt64] {
            var time = NIODeadline.uptimeNanoseconds(start)
            let first = checks.due(.seconds(5), after: time)
            #expect(first >= time + .milliseconds(3_750) && first <= time + .milliseconds(6_250))
            #expect(checks.next(after: first - .nanoseconds(1)) == first)
            // The work begins a little later than its time.
            time = first + .milliseconds(3)
            #expect(checks.due(.seconds(5), after: time) == first + .seconds(5))
            #expect(checks.due(.seconds(1), after: time) == time + .seconds(1))
            #expect(checks.due(.milliseconds(3_333), after: time) == time + .milliseconds(3_333))
        }
    }
}
