import Contract
import JobQueue
import Support

/// Timestamps and timeouts of one job, on the clock of this process (CLOCK_MONOTONIC ns). Timeouts of the job take precedence over those
/// of the worker.
struct TimeLimits {
    private let claimedAt: UInt64
    /// The time of the claim on Redis' clock, milliseconds since 1970.
    private let claimedMilliseconds: Int
    private let total: Duration
    private let firstToken: Duration
    /// Whether the job's first-token timeout is shorter than the worker's. When it expires, that says nothing about the upstream.
    let hasShortenedFirstTokenTimeout: Bool
    private let idle: Duration
    /// The job's `deadline_ms` converted to this clock.
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
        hasShortenedFirstTokenTimeout = firstToken < settings.firstTokenTimeout
        idle = job.idleTimeoutMilliseconds.map { .milliseconds($0) } ?? settings.idleTimeout
        deadline = job.deadlineMilliseconds.map { milliseconds in
            // At most 100 years: the nanoseconds of a longer time would overflow.
            now &+ UInt64(min(max(0, Self.bounded(milliseconds) - claimedMilliseconds), 3_153_600_000_000)) &* 1_000_000
        }
        dialledAt = now
        lastOutputAt = now
    }

    /// Clamps a time from Redis or a job: sums and differences of larger numbers could overflow.
    private static func bounded(_ milliseconds: Int) -> Int { min(max(0, milliseconds), 1 << 53) }

    /// A request was sent to an upstream; starts the first-token timeout.
    mutating func dialled(at now: UInt64) {
        dialledAt = now
        if firstDialledAt == nil { firstDialledAt = now }
    }

    /// The upstream sent output; restarts the idle timeout.
    mutating func produced(at now: UInt64) {
        lastOutputAt = now
        if firstTokenAt == nil { firstTokenAt = now }
    }

    /// Reading was resumed after back pressure; restarts the idle timeout.
    mutating func resumed(at now: UInt64) { lastOutputAt = now }

    var hasFirstToken: Bool { firstTokenAt != nil }

    var firstDialledMilliseconds: Int? { firstDialledAt.map(milliseconds) }
    var firstTokenMilliseconds: Int? { firstTokenAt.map(milliseconds) }

    /// Converts a time to Redis' clock, so that the times of a job record are in order.
    private func milliseconds(_ time: UInt64) -> Int { claimedMilliseconds + Int((time - claimedAt) / 1_000_000) }

    /// Time left until the total timeout or the deadline; zero when it has passed.
    func remaining(at now: UInt64) -> Duration {
        let end = min(claimedAt &+ total.timeoutNanoseconds, deadline ?? .max)
        return .nanoseconds(Int64(end > now ? end - now : 0))
    }

    /// The next timeout to expire, and its failure.
    /// - Parameters:
    ///   - state: selects the timeouts that apply.
    ///   - isReading: false while no output is waited for: reading is paused by back pressure, or the answer is over. The first-token and
    ///     idle timeouts do not apply then.
    func next(in state: GenerationMachine.State, isReading: Bool) -> (at: UInt64, failure: Failure) {
        var next = (at: claimedAt &+ total.timeoutNanoseconds, failure: Failure(.totalTimeout, "the job took longer than \(total)"))
        func consider(_ at: UInt64, _ code: FailureCode, _ message: @autoclosure () -> String) {
            if at < next.at { next = (at, Failure(code, message())) }
        }
        if let deadline { consider(deadline, .deadlineExceeded, "the job's deadline passed while it ran") }
        switch state {
        case .connecting where isReading, .waiting where isReading:
            consider(dialledAt &+ firstToken.timeoutNanoseconds, .firstTokenTimeout, "the upstream sent no token within \(firstToken)")
        case .streaming where isReading:
            consider(lastOutputAt &+ idle.timeoutNanoseconds, .idleTimeout, "the upstream sent nothing for \(idle)")
        default: break
        }
        return next
    }
}
