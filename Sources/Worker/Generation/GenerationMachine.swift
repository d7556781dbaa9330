import Contract
import Upstream

/// What a worker does with one job, from the claim to the end: decides, does nothing itself, knows no clock and no socket.
struct GenerationMachine {
    enum State: Equatable {
        /// → connecting, speaking, ended
        case claimed
        /// → waiting, backoff, ended
        case connecting
        /// The request was sent. → streaming, backoff, ended
        case waiting
        /// → speaking, ended
        case streaming
        /// The text is complete and only the voice runs. → ended
        case speaking
        /// → connecting, ended
        case backoff
        case ended
    }

    enum Action: Equatable {
        /// Ask for the durable interrupt, then `dial`.
        case check
        /// Dial the upstream of this index in the route.
        case dial(Int)
        case backOff(Duration)
        /// The text is complete; `spoken` is due when the voice is, too.
        case speak
        /// Close what is open, then end the job with this event.
        case end(GenerationEvent)
    }

    struct Policy: Equatable {
        /// Further tries at each upstream.
        var retries: Int
        var backoff: ClosedRange<Duration>
        /// How many upstreams the route has.
        var upstreams: Int
        /// Tokens that the prompt is estimated at, for when no upstream says.
        var promptEstimate: Int
    }

    private var policy: Policy
    private(set) var state = State.claimed
    /// The upstream in use, an index into the route.
    private(set) var upstream = 0
    /// The first upstream whose tries are not used up: the route is gone through from here.
    private var base = 0
    /// Failed tries at each upstream.
    private var failures: [Int]
    /// How often no upstream took the job.
    private var refusals = 0
    /// What earlier attempts and tries cost.
    private(set) var spent: Usage
    /// Chunks with output in this try: the estimate of its tokens.
    private var chunks = 0
    private var promptTokens: Int?
    private var completionTokens: Int?
    private var finish: FinishReason?
    /// How many of the chunks had come when the upstream last said how many tokens they are.
    private var chunksReported = 0
    /// The request reached the upstream, so the prompt may be billed.
    private var sent = false

    init(policy: Policy, earlier: Usage?) {
        self.policy = policy
        failures = Array(repeating: 0, count: policy.upstreams)
        spent = earlier.map(Self.bounded) ?? .none
    }

    var phase: Phase {
        switch state {
        case .claimed, .ended: .claimed
        case .connecting: .connecting
        case .waiting: .waiting
        case .streaming: .streaming
        case .speaking: .speaking
        case .backoff: .backoff
        }
    }

    /// The upstream in use is the last one there is, and the job has backed off before: it is dialled whatever its breaker says.
    var insists: Bool { upstream + 1 == policy.upstreams && (refusals > 0 || failures.contains { $0 > 0 }) }

    /// All that the job cost so far.
    var usage: Usage { spent + current }

    private var current: Usage {
        guard sent || chunks > 0 || promptTokens != nil else { return .none }
        // Chunks that came after its last figure are not in it.
        let unreported = chunks - chunksReported
        return Usage(
            promptTokens: promptTokens ?? policy.promptEstimate, completionTokens: (completionTokens ?? 0) + unreported,
            estimated: promptTokens == nil || completionTokens == nil || unreported > 0)
    }

    /// A lost worker's last note of the usage may be a beat old, or missing: what the log shows was generated at least.
    mutating func lostAttempts(cost: Usage) {
        let cost = Self.bounded(cost)
        spent = Usage(
            promptTokens: max(spent.promptTokens, cost.promptTokens), completionTokens: max(spent.completionTokens, cost.completionTokens),
            estimated: true)
    }

    // MARK: what happens

    /// Only the first upstreams of the route, so many, can do what is asked.
    mutating func narrow(to upstreams: Int) {
        policy.upstreams = upstreams
        failures = Array(repeating: 0, count: upstreams)
    }

    /// An earlier attempt has brought all of the text: nothing is asked of an upstream, only the voice is due.
    mutating func textIsWhole(_ reason: FinishReason, voiceRuns: Bool) -> Action {
        finish = reason
        guard voiceRuns else { return end(.finished(reason, usage)) }
        state = .speaking
        return .speak
    }

    mutating func begin() -> Action {
        guard policy.upstreams > 0 else {
            return fail(Failure(.modelNotFound, "no upstream of this worker serves the job's model"))
        }
        // The claim asked for the durable key just now.
        state = .connecting
        return .dial(upstream)
    }

    /// The durable key was asked for and there is none.
    mutating func checked() -> Action? {
        guard state == .backoff else { return nil }
        state = .connecting
        upstream = base
        return .dial(upstream)
    }

    /// The upstream in use takes nobody now (its breaker is open, its limits are reached): the next one at once, and after the last a wait
    /// that is no try.
    /// - Parameter wait: the least that makes sense.
    mutating func refused(wait: Duration, jitter: Double) -> Action {
        if upstream + 1 < policy.upstreams {
            upstream += 1
            return .dial(upstream)
        }
        refusals += 1
        state = .backoff
        return .backOff(max(wait, min(policy.backoff.lowerBound * (1 << min(refusals - 1, 20)), .seconds(1)) * jitter))
    }

    mutating func connected() {
        guard state == .connecting else { return }
        state = .waiting
        sent = true
    }

    /// - Returns: true for the first output of this dial: the `upstream` event is due before it.
    mutating func produced(chunks count: Int) -> Bool {
        chunks += count
        guard state == .connecting || state == .waiting else { return false }
        state = .streaming
        sent = true
        return true
    }

    /// Token counts that an upstream or the record of an earlier attempt may state; sums of larger ones could overflow, which would end the
    /// process.
    private static let figures = 0...1_000_000_000_000

    private static func bounded(_ tokens: Int) -> Int { min(max(tokens, figures.lowerBound), figures.upperBound) }

    private static func bounded(_ usage: Usage) -> Usage {
        Usage(
            promptTokens: bounded(usage.promptTokens), completionTokens: bounded(usage.completionTokens), estimated: usage.estimated)
    }

    mutating func reported(promptTokens: Int?, completionTokens: Int?) {
        self.promptTokens = promptTokens.map(Self.bounded) ?? self.promptTokens
        guard let completionTokens else { return }
        self.completionTokens = Self.bounded(completionTokens)
        chunksReported = chunks
    }

    mutating func finished(_ reason: FinishReason) { finish = reason }
    var finishReason: FinishReason { finish ?? .stop }

    /// The upstream's stream is over.
    /// - Parameters:
    ///   - remaining: how long the job may still take; a wait that is longer makes no sense.
    ///   - jitter: 0 to 1, the part of the back-off that is taken.
    ///   - voiceRuns: not all of the text is spoken.
    mutating func upstreamEnded(_ result: UpstreamResult, remaining: Duration, jitter: Double, voiceRuns: Bool = false) -> Action {
        switch result {
        case .complete where voiceRuns:
            state = .speaking
            return .speak
        case .complete: return end(.finished(finishReason, usage))
        case .failed(let failure): return failed(failure, remaining: remaining, jitter: jitter)
        }
    }

    /// All of the text is spoken, or no more of it will be.
    mutating func spoken() -> Action? {
        guard state == .speaking else { return nil }
        return end(.finished(finishReason, usage))
    }

    mutating func failed(_ failure: UpstreamFailure, remaining: Duration, jitter: Double) -> Action {
        guard state != .streaming, Self.isTriedAgain(failure.failure.code) else { return fail(failure.failure) }
        let refused = failure.failure.upstreamStatus != nil || failure.failure.code == .upstreamUnreachable
        if refused { sent = false }
        settleTry()
        failures[upstream] += 1
        let tries = failures[upstream]
        if tries > policy.retries {
            guard upstream + 1 < policy.upstreams else { return fail(failure.failure) }
            base = upstream + 1
            state = .backoff
            return .check
        }
        var wait = min(policy.backoff.lowerBound * (1 << min(tries - 1, 20)), policy.backoff.upperBound) * jitter
        if let asked = failure.retryAfter { wait = max(wait, asked) }
        guard wait < remaining else { return fail(failure.failure) }
        state = .backoff
        return .backOff(wait)
    }

    /// - Parameters:
    ///   - delivered: tokens that stand in the log.
    ///   - maximum: tokens that the job asked for at most.
    mutating func interrupted(_ interrupt: Interrupt, latencyMicroseconds: Int, delivered: Int? = nil, maximum: Int? = nil) -> Action? {
        guard state != .ended else { return nil }
        let generated = usage.completionTokens
        return end(
            .interrupted(
                Interruption(
                    reason: interrupt.reason, phase: phase, usage: usage, latencyMicroseconds: latencyMicroseconds,
                    deliveredTokens: delivered.map { min($0, generated) }, savedTokens: maximum.map { max(0, Self.bounded($0) - generated) }
                )))
    }

    mutating func fail(_ failure: Failure) -> Action {
        end(.failed(failure, usage))
    }

    private mutating func end(_ event: GenerationEvent) -> Action {
        state = .ended
        return .end(event)
    }

    /// What this try cost is kept, and the next one begins at nothing.
    private mutating func settleTry() {
        spent = usage
        chunks = 0
        chunksReported = 0
        promptTokens = nil
        completionTokens = nil
        sent = false
        finish = nil
    }

    /// Before the first token these may pass by themselves (promise 7).
    private static func isTriedAgain(_ code: FailureCode) -> Bool {
        switch code {
        case .rateLimited, .overloaded, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout:
            true
        default: false
        }
    }
}
