/// Keeps what is dead from being asked: opens after failures in a row, lets one probe through when its pause is over, and closes at the
/// first success. Knows no clock.
struct CircuitBreaker: Equatable {
    struct Policy: Equatable {
        /// Failures in a row that open it, when the first of them is not older than `window`.
        var failures = 5
        /// Nanoseconds.
        var window: UInt64 = 30_000_000_000
        /// Nanoseconds until the first probe; doubles with each probe that fails, up to the upper bound.
        var pause: ClosedRange<UInt64> = 5_000_000_000...60_000_000_000
    }

    enum State: Equatable {
        /// → open
        case closed(failures: Int, since: UInt64)
        /// → probing, closed (by the answer to something asked before it opened)
        case open(until: UInt64)
        /// One request is under way to find out. → closed, open
        case probing
    }

    enum Admission: Equatable { case pass, probe, refused }

    private let policy: Policy
    private(set) var state = State.closed(failures: 0, since: 0)
    private var pause: UInt64

    init(policy: Policy = Policy()) {
        self.policy = policy
        pause = policy.pause.lowerBound
    }

    /// Nothing speaks against what it watches.
    var isUntroubled: Bool { state == .closed(failures: 0, since: 0) }

    /// For people: 0 closed, 1 probing, 2 open.
    var level: Int {
        switch state {
        case .closed: 0
        case .probing: 1
        case .open: 2
        }
    }

    mutating func admit(at now: UInt64) -> Admission {
        switch state {
        case .closed: return .pass
        case .open(let until) where now >= until:
            state = .probing
            return .probe
        case .open, .probing: return .refused
        }
    }

    mutating func succeeded() {
        state = .closed(failures: 0, since: 0)
        pause = policy.pause.lowerBound
    }

    /// - Parameter isProbe: the failure is that of the probe.
    /// - Returns: how long it is open from now on, if this opened it, in nanoseconds.
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
        // Asked before it opened, or in spite of it: says nothing new.
        case .open, .probing: return nil
        }
    }

    /// The probe ended without having found out (its job was interrupted, say): the next one may try.
    mutating func probeAbandoned(at now: UInt64) {
        if state == .probing { state = .open(until: now) }
    }

    private mutating func open(at now: UInt64) -> UInt64 {
        state = .open(until: now &+ pause)
        return pause
    }
}
