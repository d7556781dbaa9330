import Contract

/// Detects output of a job that is not written although Redis answers the renewals of its lease. This should never happen: every write and
/// every comparison with Redis starts the next one. The worker then compares the job with Redis again. No I/O.
struct OutputStall {
    /// The newest written event while further output waited, and since when.
    private var waiting: (behind: EventID, since: UInt64)?

    /// Called at each renewal that Redis has answered.
    /// - Parameters:
    ///   - hasUnwritten: whether output or the end of the job is not written.
    ///   - written: the newest written event.
    ///   - now: CLOCK_MONOTONIC ns.
    ///   - limit: ns after which output counts as stalled.
    /// - Returns: whether output has waited for `limit` and none of it was written; once, and again after another `limit`.
    mutating func isStalled(hasUnwritten: Bool, written: EventID, now: UInt64, limit: UInt64) -> Bool {
        guard hasUnwritten else {
            waiting = nil
            return false
        }
        guard let waiting, waiting.behind == written else {
            waiting = (written, now)
            return false
        }
        guard now &- waiting.since >= limit else { return false }
        self.waiting = nil
        return true
    }
}
