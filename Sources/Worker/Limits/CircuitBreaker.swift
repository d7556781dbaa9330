/// A circuit breaker: opens after consecutive failures, admits one probe after a pause, and closes at the first success.
///
/// Pure state; the caller passes the time.
struct CircuitBreaker: Equatable {
    /// Thresholds and pauses.
    struct Policy: Equatable {
        /// Consecutive failures within `window` that open the breaker.
        var failures = 5
        /// Maximum age of the first of these failures, in nanoseconds.
        var window: UInt64 = 30_000_000_000
        /// Nanoseconds from opening to the probe. Doubles with each failed probe, up to the upper bound.
        var pause: ClosedRange<UInt64> = 5_000_000_000...60_000_000_000
    }

    enum State: Equatable {
        /// → open
        case closed(failures: Int, since: UInt64)
        /// → probing, closed (by the success of a request that was sent before the breaker opened)
        case open(until: UInt64)
        /// One probe is in progress. → closed, open
        case probing
    }

    /// The answer to a request for admission.
    enum Admission: Equatable { case pass, probe, refused }

    private let policy: Policy
    private(set) var state = State.closed(failures: 0, since: 0)
    private var pause: UInt64

    init(policy: Policy = Policy()) {
        self.policy = policy
        pause = policy.pause.lowerBound
    }

    /// The state as a metric: 0 closed, 1 probing, 2 open.
    var level: Int {
        switch state {
        case .closed: 0
        case .probing: 1
        case .open: 2
        }
    }

    /// Admits a request, or the probe once the pause is over.
    /// - Parameter now: CLOCK_MONOTONIC ns, here and below.
    mutating func admit(at now: UInt64) -> Admission {
        switch state {
        case .closed: return .pass
        case .open(let until) where now >= until:
            state = .probing
            return .probe
        case .open, .probing: return .refused
        }
    }

    /// Closes the breaker and resets the pause.
    mutating func succeeded() {
        state = .closed(failures: 0, since: 0)
        pause = policy.pause.lowerBound
    }

    /// Counts a failure.
    /// - Parameter isProbe: whether the failed request was the probe.
    /// - Returns: the pause in nanoseconds if this failure opened the breaker, else nil.
    mutating func failed(isProbe: Bool, at now: UInt64) -> UInt64? {
        switch state {
        case .closed(let failures, let since):
            guard failures > 0, now &- since <= policy.window else {
                state = .closed(failures: 1, since: now)
                return policy.failures <= 1 ? open(at: now) : nil
            }
            state = .closed(failures: failures + 1, since: since)
            return failures + 1 >= policy.failures ? open(at: now) : nil
        case .probing where isProbe:
            pause = min(pause * 2, policy.pause.upperBound)
            return open(at: now)
        // The request was sent before the breaker opened, or was forced: no new information.
        case .open, .probing: return nil
        }
    }

    /// The probe ended without a result (for example its job was interrupted): the next request may probe.
    mutating func probeAbandoned(at now: UInt64) {
        if state == .probing { state = .open(until: now) }
    }

    private mutating func open(at now: UInt64) -> UInt64 {
        state = .open(until: now &+ pause)
        return pause
    }
}
