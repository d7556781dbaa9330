import Contract
import JobQueue

/// When things happened to a job and until when it may take, on this process' clock (CLOCK_MONOTONIC ns). The job's own limits go before
/// the worker's.
struct TimeLimits {
    private let claimedAt: UInt64
    private let claimedMilliseconds: Int
    private let total: Duration
    private let firstToken: Duration
    private let idle: Duration
    /// `deadline_ms` on this clock.
    private let deadline: UInt64?

    private var dialledAt: UInt64
    private var lastOutputAt: UInt64
    private var firstDialledAt: UInt64?
    private var firstTokenAt: UInt64?

    init(claim: Claim, settings: WorkerSettings, now: UInt64) {
        claimedAt = now
        let claimedMilliseconds = Self.bounded(claim.claimedMilliseconds)
        self.claimedMilliseconds = claimedMilliseconds
        let job = claim.job
        total = job.totalTimeoutMilliseconds.map { .milliseconds($0) } ?? settings.totalTimeout
        firstToken = job.firstTokenTimeoutMilliseconds.map { .milliseconds($0) } ?? settings.firstTokenTimeout
        idle = job.idleTimeoutMilliseconds.map { .milliseconds($0) } ?? settings.idleTimeout
        deadline = job.deadlineMilliseconds.map { milliseconds in
            // A hundred years at most: more would not fit into the clock's nanoseconds.
            now &+ UInt64(min(max(0, Self.bounded(milliseconds) - claimedMilliseconds), 3_153_600_000_000)) &* 1_000_000
        }
        dialledAt = now
        lastOutputAt = now
    }

    /// Times of Redis and of a job's author: sums and differences of larger ones could overflow.
    private static func bounded(_ milliseconds: Int) -> Int { min(max(0, milliseconds), 1 << 53) }

    mutating func dialled(at now: UInt64) {
        dialledAt = now
        if firstDialledAt == nil { firstDialledAt = now }
    }

    mutating func produced(at now: UInt64) {
        lastOutputAt = now
        if firstTokenAt == nil { firstTokenAt = now }
    }

    mutating func resumed(at now: UInt64) { lastOutputAt = now }

    var hasFirstToken: Bool { firstTokenAt != nil }

    var firstDialledMilliseconds: Int? { firstDialledAt.map(milliseconds) }
    var firstTokenMilliseconds: Int? { firstTokenAt.map(milliseconds) }

    /// On Redis' clock, so that a record's times are in order.
    private func milliseconds(_ time: UInt64) -> Int { claimedMilliseconds + Int((time - claimedAt) / 1_000_000) }

    /// How long the job may still take.
    func remaining(at now: UInt64) -> Duration {
        let end = min(claimedAt &+ total.wholeNanoseconds, deadline ?? .max)
        return .nanoseconds(Int64(end > now ? end - now : 0))
    }

    /// The next moment at which something is too late, and what.
    /// - Parameter reading: false while the upstream is held back on purpose: its silence is ours then.
    func next(in state: GenerationMachine.State, reading: Bool) -> (at: UInt64, failure: Failure) {
        var next = (at: claimedAt &+ total.wholeNanoseconds, failure: Failure(.totalTimeout, "the job took longer than \(total)"))
        func consider(_ at: UInt64, _ code: FailureCode, _ message: @autoclosure () -> String) {
            if at < next.at { next = (at, Failure(code, message())) }
        }
        if let deadline { consider(deadline, .deadlineExceeded, "the job's deadline passed while it ran") }
        switch state {
        case .connecting, .waiting:
            consider(dialledAt &+ firstToken.wholeNanoseconds, .firstTokenTimeout, "the upstream sent no token within \(firstToken)")
        case .streaming where reading:
            consider(lastOutputAt &+ idle.wholeNanoseconds, .idleTimeout, "the upstream sent nothing for \(idle)")
        default: break
        }
        return next
    }
}

extension Duration {
    /// 0 for a negative one; a hundred years at most.
    fileprivate var wholeNanoseconds: UInt64 {
        UInt64(min(max(0, components.seconds), 3_153_600_000)) * 1_000_000_000 + UInt64(max(0, components.attoseconds / 1_000_000_000))
    }
}
