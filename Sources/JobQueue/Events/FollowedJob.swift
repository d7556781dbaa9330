import Contract
import NIOCore

/// The state of one reader.
final class Follower {
    let number: UInt64
    var sequence: EventSequence
    let receive: @Sendable ([LoggedEvent]) -> Void
    /// Nil for a reader that takes any number of events at once.
    let pace: EventFeed.Pace?

    init(number: UInt64, after: EventID?, pace: EventFeed.Pace?, receive: @escaping @Sendable ([LoggedEvent]) -> Void) {
        self.number = number
        self.pace = pace
        sequence = EventSequence(after: after)
        self.receive = receive
    }
}

/// A subscription to a job's output channel and its readers.
final class FollowedJob {
    let since = NIODeadline.now()
    var followers: [Follower] = []
    var confirmed = false
    var waiting: [EventLoopPromise<Void>] = []
    /// Events that arrived in this turn of the loop.
    var arrived: [LoggedEvent] = []
    /// Whether a message arrived, or a reader was added, since the last check.
    var hasNews = true
    var timer = LookTimer()
    /// Whether each check compares the job by itself: it is not in Redis, or a reader may have later events than its log.
    var mustCompare = false
    /// Whether Redis had the job before.
    var isKnown = false
    /// Consecutive checks that found neither a log nor a record.
    var absences = 0
    /// The record's field `entry`; nil while unknown.
    var entry: String?

    /// The last event that every reader has; nil for none.
    var last: EventID? {
        var oldest: EventID?
        for follower in followers {
            guard let last = follower.sequence.last else { return nil }
            oldest = oldest.map { min($0, last) } ?? last
        }
        return oldest
    }
}
