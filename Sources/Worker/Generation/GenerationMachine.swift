import Contract
import Support
import Upstream

/// State machine of one job from the claim to the end. Every method returns the action to take; it does no I/O and reads no clock.
struct GenerationMachine {
    /// The states, with their successors.
    enum State: Equatable {
        /// → preparing, connecting, speaking, ended
        case claimed
        /// The user's audio is being recognized, or documents are being retrieved; the phase says which. → connecting, ended
        case preparing(Phase)
        /// → waiting, backoff, ended
        case connecting
        /// The request was sent. → streaming, backoff, ended
        case waiting
        /// → speaking, ended
        case streaming
        /// The text is complete and speech is in progress. → ended
        case speaking
        /// → connecting, ended
        case backoff
        case ended
    }

    /// What the generation must do next.
    enum Action: Equatable {
        /// Read the interrupt key, then call `checked`.
        case check
        /// Send the request to the upstream with this index in the route.
        case dial(Int)
        /// Wait, then read the interrupt key and call `checked`.
        case backOff(Duration)
        /// The text is complete; call `speechEnded` when the speech has ended.
        case speak
        /// Close all connections, then end the job with this event.
        case end(GenerationEvent)
    }

    /// Limits of retries and the route.
    struct Policy: Equatable {
        /// Retries at each upstream.
        var retries: Int
        /// The first upper limit of the back-off, doubled for each retry up to the second.
        var backoff: ClosedRange<Duration>
        /// Number of upstreams in the route.
        var upstreams: Int
        /// Estimated tokens of the prompt, used when no upstream reports them.
        var promptEstimate: Int
    }

    private var policy: Policy
    private(set) var state = State.claimed
    /// Index in the route of the current upstream.
    private(set) var upstream = 0
    /// The first upstream with retries left; each round starts there.
    private var firstUpstream = 0
    /// Failed requests per upstream.
    private var failures: [Int]
    /// Number of rounds in which no upstream admitted the job.
    private var refusals = 0
    /// The shortest wait that an upstream of this round has asked for; nil at the start of a round.
    private var roundWait: Duration?
    /// Usage of earlier attempts and requests.
    private(set) var spent: Usage
    /// The output of the current request: the estimate of its tokens.
    private var output = OutputCount()
    /// As reported by the upstream, like the next one.
    private var promptTokens: Int?
    private var completionTokens: Int?
    private var details = TokenDetails()
    private var finish: FinishReason?
    private var stopSequence: String?
    /// Number of tokens generated when the last write began, that is tokens in the log or on their way to it.
    private(set) var deliveredTokens: Int
    /// The preparation is complete, and the first request follows.
    private var isPrepared = false
    /// The request was sent, so its prompt may be billed.
    private var sent = false

    /// - Parameter earlier: usage of earlier attempts from the job record.
    init(policy: Policy, earlier: Usage?) {
        self.policy = policy
        failures = Array(repeating: 0, count: policy.upstreams)
        spent = earlier.map(Self.bounded) ?? .none
        deliveredTokens = spent.completionTokens
    }

    /// The phase for events and metrics.
    var phase: Phase {
        switch state {
        case .claimed, .ended: .claimed
        case .preparing(let phase): phase
        case .connecting: .connecting
        case .waiting: .waiting
        case .streaming: .streaming
        case .speaking: .speaking
        case .backoff: .backoff
        }
    }

    /// Whether the next request ignores an open breaker: it goes to the last upstream, and the job has backed off before.
    var ignoresOpenBreaker: Bool { upstream + 1 == policy.upstreams && (refusals > 0 || failures.contains { $0 > 0 }) }

    /// Total usage of the job so far.
    var usage: Usage { spent + current }

    /// Whether a request may have been billed.
    var isBillable: Bool { usage.promptTokens > 0 || usage.completionTokens > 0 }

    /// Usage of the current request.
    private var current: Usage {
        guard sent || !output.isEmpty || promptTokens != nil else { return .none }
        // Output received after the last reported count is not included in it.
        let unreported = output.unreported
        return Usage(
            promptTokens: promptTokens ?? policy.promptEstimate, completionTokens: (completionTokens ?? 0) + unreported,
            estimated: promptTokens == nil || completionTokens == nil || unreported > 0,
            cachedTokens: details.cached, reasoningTokens: details.reasoning)
    }

    /// Corrects the usage of earlier attempts after a crash. The recorded usage may be one renewal interval old or missing, so the usage
    /// derived from the event log is the minimum.
    mutating func addLostAttempts(cost: Usage) {
        let cost = Self.bounded(cost)
        spent = Usage(
            promptTokens: max(spent.promptTokens, cost.promptTokens), completionTokens: max(spent.completionTokens, cost.completionTokens),
            estimated: true, cachedTokens: spent.cachedTokens, reasoningTokens: spent.reasoningTokens)
    }

    // MARK: events

    /// A write with all output so far begins.
    mutating func writeBegins() { deliveredTokens = usage.completionTokens }

    /// Limits the route to its first upstreams, which are the ones that can continue a text.
    mutating func narrow(to upstreams: Int) {
        policy.upstreams = upstreams
        failures = Array(repeating: 0, count: upstreams)
    }

    /// Starts a job with a complete text from an earlier attempt: no upstream is called, only the speech is continued.
    mutating func textIsComplete(_ reason: FinishReason, isSpeaking: Bool) -> Action {
        finish = reason
        guard isSpeaking else { return end(.finished(reason, usage)) }
        state = .speaking
        return .speak
    }

    /// Starts the job with its first request, or fails it when no upstream serves the model.
    mutating func begin() -> Action {
        guard policy.upstreams > 0 else {
            return fail(Failure(.modelNotFound, "no upstream of this worker serves the job's model"))
        }
        // The claim script has just read the interrupt key.
        state = .connecting
        return .dial(upstream)
    }

    /// The job is in a phase before the request to the model: `recognizing` or `retrieving`.
    mutating func preparing(_ phase: Phase) {
        switch state {
        case .claimed, .preparing: state = .preparing(phase)
        default: break
        }
    }

    /// The preparation is complete. The caller reads the interrupt key, then calls `checked`.
    mutating func prepared() { isPrepared = true }

    /// Ends the job because the user's audio contains no speech.
    mutating func noSpeech() -> Action { end(.finished(.noSpeech, usage)) }

    /// Continues after the interrupt key was read and does not exist.
    mutating func checked() -> Action? {
        if isPrepared {
            isPrepared = false
            return begin()
        }
        guard state == .backoff else { return nil }
        state = .connecting
        roundWait = nil
        upstream = firstUpstream
        return .dial(upstream)
    }

    /// Handles an open breaker: tries the next upstream at once, and backs off after the last. Does not count as a retry.
    /// - Parameter jitter: factor of the back-off, 0.5 to 1.
    mutating func refused(jitter: Double) -> Action {
        limited(wait: Backoff.bound(from: policy.backoff.lowerBound, to: .seconds(1), attempt: refusals) * jitter)
    }

    /// Handles an exhausted limit: tries the next upstream at once, and waits after the last, for the shortest wait of the round. Does not
    /// count as a retry.
    mutating func limited(wait: Duration) -> Action {
        let wait = min(roundWait ?? wait, wait)
        roundWait = wait
        if upstream + 1 < policy.upstreams {
            upstream += 1
            return .dial(upstream)
        }
        refusals += 1
        state = .backoff
        return .backOff(wait)
    }

    /// The request was sent.
    mutating func connected() {
        guard state == .connecting else { return }
        state = .waiting
        sent = true
    }

    /// Counts output of the upstream.
    /// - Returns: true for the first output of a request: the `upstream` event must precede it.
    mutating func produced(chunks count: Int) -> Bool {
        output.add(chunks: count)
        guard state == .connecting || state == .waiting else { return false }
        state = .streaming
        sent = true
        return true
    }

    /// Range of accepted token counts. They come from upstreams and job records; sums of larger numbers could overflow and trap.
    private static let tokenRange = 0...1_000_000_000_000

    private static func bounded(_ tokens: Int) -> Int { min(max(tokens, tokenRange.lowerBound), tokenRange.upperBound) }

    private static func bounded(_ usage: Usage) -> Usage {
        Usage(
            promptTokens: bounded(usage.promptTokens), completionTokens: bounded(usage.completionTokens), estimated: usage.estimated,
            cachedTokens: usage.cachedTokens.map(bounded), reasoningTokens: usage.reasoningTokens.map(bounded))
    }

    /// Counts the text of the output.
    mutating func produced(text: String) { output.add(text: text) }

    /// Counts a tool call of the output.
    mutating func produced(call name: String, arguments: String) { output.add(call: name, arguments: arguments) }

    /// Stores token counts reported by the upstream, clamped; nil keeps the previous value.
    mutating func reported(promptTokens: Int?, completionTokens: Int?, details: TokenDetails = TokenDetails()) {
        self.promptTokens = promptTokens.map(Self.bounded) ?? self.promptTokens
        self.details.cached = details.cached.map(Self.bounded) ?? self.details.cached
        self.details.reasoning = details.reasoning.map(Self.bounded) ?? self.details.reasoning
        guard let completionTokens else { return }
        self.completionTokens = Self.bounded(completionTokens)
        output.report()
    }

    /// Stores the finish reason reported by the upstream, and the stop sequence that ended the answer.
    mutating func finished(_ reason: FinishReason, stopSequence: String? = nil) { (finish, self.stopSequence) = (reason, stopSequence) }
    /// The reported finish reason; `stop` if there is none.
    var finishReason: FinishReason { finish ?? .stop }

    /// Handles the end of the upstream's stream.
    /// - Parameters:
    ///   - remaining: time left for the job; a longer back-off fails the job instead.
    ///   - jitter: fraction of the back-off to wait, 0 to 1.
    ///   - isSpeaking: whether speech is still in progress.
    mutating func upstreamEnded(_ result: UpstreamResult, remaining: Duration, jitter: Double, isSpeaking: Bool = false) -> Action {
        switch result {
        case .complete where isSpeaking:
            state = .speaking
            return .speak
        case .complete: return end(.finished(finishReason, usage, stopSequence: stopSequence))
        case .failed(let failure): return failed(failure, remaining: remaining, jitter: jitter)
        }
    }

    /// Handles the end of the speech. Returns nil unless the text is complete.
    mutating func speechEnded() -> Action? {
        guard state == .speaking else { return nil }
        return end(.finished(finishReason, usage, stopSequence: stopSequence))
    }

    /// Handles a failed request: retries it, moves to the next upstream, or ends the job. No retry after the first token.
    mutating func failed(_ failure: UpstreamFailure, remaining: Duration, jitter: Double) -> Action {
        guard state != .streaming, Self.isRetryable(failure.failure.code) else { return fail(failure.failure) }
        let refused = failure.failure.upstreamStatus != nil || failure.failure.code == .upstreamUnreachable
        if refused { sent = false }
        startNextRequest()
        failures[upstream] += 1
        let tries = failures[upstream]
        if tries > policy.retries {
            guard upstream + 1 < policy.upstreams else { return fail(failure.failure) }
            firstUpstream = upstream + 1
            state = .backoff
            return .check
        }
        var wait = Backoff.bound(from: policy.backoff.lowerBound, to: policy.backoff.upperBound, attempt: tries - 1) * jitter
        if let asked = failure.retryAfter { wait = max(wait, asked) }
        guard wait < remaining else { return fail(failure.failure) }
        state = .backoff
        return .backOff(wait)
    }

    /// Ends the job as interrupted; nil if it has already ended.
    /// - Parameters:
    ///   - latencyMicroseconds: time from receiving the interrupt to closing the upstream.
    ///   - delivered: tokens in the log.
    ///   - maximum: the job's maximum number of tokens.
    ///   - billing: whether its cost is known.
    mutating func interrupted(
        _ interrupt: Interrupt, latencyMicroseconds: Int, delivered: Int? = nil, maximum: Int? = nil, billing: Usage.Billing? = nil
    ) -> Action? {
        guard state != .ended else { return nil }
        let generated = usage.completionTokens
        var usage = usage
        usage.billing = billing
        return end(
            .interrupted(
                Interruption(
                    reason: interrupt.reason, phase: phase, usage: usage, latencyMicroseconds: latencyMicroseconds,
                    deliveredTokens: delivered.map { min($0, generated) }, savedTokens: maximum.map { max(0, Self.bounded($0) - generated) }
                )))
    }

    /// Ends the job with a failure.
    mutating func fail(_ failure: Failure) -> Action {
        end(.failed(failure, usage))
    }

    private mutating func end(_ event: GenerationEvent) -> Action {
        state = .ended
        return .end(event)
    }

    /// Adds the usage of the failed request to `spent` and resets the counters for the next one.
    private mutating func startNextRequest() {
        spent = usage
        output = OutputCount()
        promptTokens = nil
        completionTokens = nil
        details = TokenDetails()
        sent = false
        finish = nil
    }

    /// Failures that may be temporary and are retried before the first token (promise 7).
    private static func isRetryable(_ code: FailureCode) -> Bool {
        switch code {
        case .rateLimited, .overloaded, .upstreamError, .upstreamUnreachable, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout:
            true
        default: false
        }
    }
}
