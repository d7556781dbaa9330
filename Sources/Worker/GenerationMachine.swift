import Contract
import Upstream

/// What a worker does with one job, from the claim to the end: decides, does nothing itself, knows no clock and no socket.
struct GenerationMachine {
    enum State: Equatable {
        /// → connecting, ended
        case claimed
        /// → waiting, backoff, ended
        case connecting
        /// The request was sent. → streaming, backoff, ended
        case waiting
        /// → ended
        case streaming
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

    private let policy: Policy
    private(set) var state = State.claimed
    /// The upstream in use, an index into the route.
    private(set) var upstream = 0
    /// Failed tries at the upstream in use.
    private var failures = 0
    /// What earlier attempts and tries cost.
    private(set) var spent: Usage
    /// Chunks with output in this try: the estimate of its tokens.
    private var chunks = 0
    private var promptTokens: Int?
    private var completionTokens: Int?
    private var finish: FinishReason?
    /// The request reached the upstream, so the prompt may be billed.
    private var sent = false

    init(policy: Policy, earlier: Usage?) {
        self.policy = policy
        spent = earlier ?? .none
    }

    var phase: Phase {
        switch state {
        case .claimed, .ended: .claimed
        case .connecting: .connecting
        case .waiting: .waiting
        case .streaming: .streaming
        case .backoff: .backoff
        }
    }

    var hasOutput: Bool { state == .streaming }

    /// All that the job cost so far.
    var usage: Usage { spent + current }

    private var current: Usage {
        guard sent || chunks > 0 || promptTokens != nil else { return .none }
        return Usage(
            promptTokens: promptTokens ?? policy.promptEstimate, completionTokens: completionTokens ?? chunks,
            estimated: promptTokens == nil || completionTokens == nil)
    }

    // MARK: what happens

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
        return .dial(upstream)
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

    mutating func reported(promptTokens: Int?, completionTokens: Int?) {
        self.promptTokens = promptTokens ?? self.promptTokens
        self.completionTokens = completionTokens ?? self.completionTokens
    }

    mutating func finished(_ reason: FinishReason) { finish = reason }

    /// The upstream's stream is over.
    /// - Parameters:
    ///   - remaining: how long the job may still take; a wait that is longer makes no sense.
    ///   - jitter: 0 to 1, the part of the back-off that is taken.
    mutating func upstreamEnded(_ result: UpstreamResult, remaining: Duration, jitter: Double) -> Action {
        switch result {
        case .complete: return end(.finished(finish ?? .stop, usage))
        case .failed(let failure): return failed(failure, remaining: remaining, jitter: jitter)
        }
    }

    mutating func failed(_ failure: UpstreamFailure, remaining: Duration, jitter: Double) -> Action {
        guard state != .streaming, Self.isTriedAgain(failure.failure.code) else { return fail(failure.failure) }
        let refused = failure.failure.upstreamStatus != nil || failure.failure.code == .upstreamUnreachable
        if refused { sent = false }
        settleTry()
        failures += 1
        if failures > policy.retries {
            guard upstream + 1 < policy.upstreams else { return fail(failure.failure) }
            upstream += 1
            failures = 0
            state = .backoff
            return .check
        }
        var wait = min(policy.backoff.lowerBound * (1 << min(failures - 1, 20)), policy.backoff.upperBound) * jitter
        if let asked = failure.retryAfter { wait = max(wait, asked) }
        guard wait < remaining else { return fail(failure.failure) }
        state = .backoff
        return .backOff(wait)
    }

    mutating func interrupted(_ interrupt: Interrupt, latencyMicroseconds: Int) -> Action? {
        guard state != .ended else { return nil }
        let phase = phase
        return end(
            .interrupted(Interruption(reason: interrupt.reason, phase: phase, usage: usage, latencyMicroseconds: latencyMicroseconds)))
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
