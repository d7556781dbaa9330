import NIOCore

/// The times at which the connections of this process check idle servers, and at which its periodic work may begin. They have them in common,
/// so that a server wakes up once for all: waking costs a server many times what a PING costs.
struct CheckTimes {
    /// Time between two checks.
    let interval: TimeAmount

    /// Shifts the times of this process, so that processes started together do not check at the same moment. ns.
    private static let shift = Int64.random(in: 0..<(1 << 40))

    /// - Parameter silence: `RedisSettings.silence`, positive. The interval is half of it.
    init(silence: TimeAmount) {
        interval = .nanoseconds(max(1, silence.nanoseconds / 2))
    }

    /// The first check after `time`, at most an interval later.
    func next(after time: NIODeadline) -> NIODeadline {
        let shifted = Int64(time.uptimeNanoseconds % UInt64(interval.nanoseconds)) + Self.shift % interval.nanoseconds
        return time + .nanoseconds(interval.nanoseconds - shifted % interval.nanoseconds)
    }

    /// The time `period` after `time`. If the period is a multiple of the interval, the check that is nearest to it, so that work with this period
    /// coincides with checks.
    func due(_ period: TimeAmount, after time: NIODeadline) -> NIODeadline {
        guard period >= interval, period.nanoseconds % interval.nanoseconds == 0 else { return time + period }
        return next(after: time + period - .nanoseconds(interval.nanoseconds / 2))
    }
}
