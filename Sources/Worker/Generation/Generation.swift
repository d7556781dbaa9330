import Contract
import CoreMetrics
import CurlTransport
import JSONCodec
import JobQueue
import Logging
import Upstream

/// One running job: carries out the actions of its `GenerationMachine`. Not thread-safe: used on the upstream loop only.
///
/// Generation+Upstream receives from the upstream, Generation+Ending stops and ends the job, Generation+Writing writes its output,
/// Generation+Speech synthesizes it.
final class Generation {
    /// Whether this worker still runs the job. Everything that depends on whether the job was stopped depends on this alone.
    enum Stage {
        /// → handingBack, ending, over
        case running
        /// Generating was stopped; the hand-back follows as soon as the collected output is written. → ending (interrupted), over
        case handingBack
        /// The terminal event is decided and being written. → handingBack (Redis has lost output), over
        case ending
        /// Ended, lost, handed back or abandoned: nothing more is read or written. → ending (Redis has lost the end)
        case over
    }

    /// What a generation asks of its pool, which does it on the same thread.
    enum Request {
        /// Write the collected output with the next batch. `tokens`: received since the last request.
        case write(tokens: Int)
        /// Read what Redis holds of the job, then call `validated` or `replyLost`.
        case validate
        /// Read the audio of the user's message, then call `audioRead`.
        case readAudio
        /// Ask for a place under a limit over all workers.
        case reserve(LimitReservation)
        /// Give a place back. `used`: tokens used since it was taken.
        case release(LimitReservation, used: Int)
        /// Read the interrupt key, then call `interruptChecked`.
        case readInterruptKey
        /// Hand the job back, if it can still be handed back.
        case handBack
        /// Remove the generation: its terminal event is in the log.
        case removeEnded
        /// Remove the generation: another attempt owns the job, it ended elsewhere, or Redis no longer has it.
        case removeLost
    }

    let claim: Claim
    var id: JobID { claim.job.id }
    let context: GenerationContext
    /// Told by the pool and by the generation how the job uses a slot.
    let slot: @Sendable (SlotUse) -> Void
    private let pool: (Generation, Request) -> Void

    var stage = Stage.running
    var machine: GenerationMachine
    var output: OutputWriter
    /// The upstreams that may still be used, in order of preference.
    private(set) var candidates: [UpstreamRoute.Candidate]
    var call: UpstreamCall?
    /// The permission for the current request.
    var pass: UpstreamGate.Pass?
    /// Places under limits over all workers, and in their lines.
    var reservations: [LimitReservation] = []
    /// The upstream for whose limits Redis is being asked; nil: for none.
    var asked: UpstreamRoute.Candidate?
    /// The job waits for a limit and has left its slot to others.
    var waitsForLimit = false
    /// Tokens used when the current request was sent.
    var usageAtDial = 0
    var speech: SpeechRun?
    /// Recognition and retrieval; nil when there is none or it is complete.
    var preparation: Preparation?
    /// The request's body after the preparation.
    var preparedBody: JSONObject?
    /// False while reading from the upstream is paused by back pressure.
    var isReading = true
    /// The output of earlier attempts that this one continues; nil: it starts from the beginning.
    var continuation: Continuation?

    /// Writes with the next batch. Belongs to `OutputSchedule`.
    var isScheduled = false
    /// What Redis holds of the job is being read. Belongs to the pool.
    var isValidating = false
    /// The number of the connection to Redis on which the job was claimed or last validated. Nothing is written on another one.
    var connection: Int
    /// The progress that the job's record holds, and the number of the connection on which it was written; nil before the first renewal.
    var recorded: (progress: JobProgress, connection: Int)?
    /// The score of the lease, as Redis reported it last; see `LeaseReport`.
    var leaseScore: String?
    /// When Redis last reported that this attempt has the job, CLOCK_MONOTONIC ns.
    var heldAt: UInt64
    /// Redis has lost output of this attempt that readers have seen.
    var hasLostOutput = false
    /// The terminal event was already in the log once.
    var hasEnded = false

    /// Timeouts and timestamps of the job.
    var times: TimeLimits
    private var timer: LoopTimer?
    var backoffTimer: LoopTimer?

    /// - Parameters:
    ///   - candidates: the upstreams that serve the job's model, in order of preference.
    ///   - pool: carries out requests before it returns.
    init(
        claim: Claim, candidates: [UpstreamRoute.Candidate], context: GenerationContext, slot: @escaping @Sendable (SlotUse) -> Void,
        pool: @escaping (Generation, Request) -> Void
    ) {
        self.claim = claim
        self.context = context
        self.candidates = candidates
        self.slot = slot
        self.pool = pool
        connection = claim.connection
        machine = GenerationMachine(
            policy: GenerationMachine.Policy(
                retries: context.settings.retries, backoff: context.settings.backoff, upstreams: candidates.count,
                promptEstimate: TokenEstimate.prompt(claim.job.request)),
            earlier: claim.earlierUsage)
        output = OutputWriter(claim, settings: context.queueSettings)
        heldAt = context.loop.now
        times = TimeLimits(claim: claim, settings: context.settings, now: heldAt)
    }

    /// Whether the job may still produce output and be ended.
    var isLive: Bool { stage == .running || stage == .handingBack }
    var phase: Phase { machine.phase }
    var usage: Usage { machine.usage }
    var ending: GenerationEvent? { output.ending }
    var failedWrites: Int { output.failedWrites }
    /// The upstream of the current answer; nil before the first token.
    var upstreamName: String? { !times.hasFirstToken || candidates.isEmpty ? nil : candidates[machine.upstream].upstream.name }

    /// The lease renewal of this attempt, with its whole progress and a comparison of its log.
    var renewal: LeaseRenewal {
        LeaseRenewal(id: id, entry: claim.entry, attempt: claim.attempt, progress: progress, written: output.log.written)
    }

    /// The progress for the job record.
    var progress: JobProgress {
        JobProgress(
            usage: usage, upstream: upstreamName, dialledMilliseconds: times.firstDialledMilliseconds,
            firstTokenMilliseconds: times.firstTokenMilliseconds)
    }

    func request(_ request: Request) { pool(self, request) }

    // MARK: begin

    /// Starts the job.
    /// - Parameters:
    ///   - earlier: the event log of earlier attempts; empty for the first one.
    ///   - interrupt: an interrupt that arrived during the claim.
    func begin(earlier: [LoggedEvent], interrupt: Interrupt?) {
        if claim.crashes > 0, let cost = TokenEstimate.logged(earlier, prompt: TokenEstimate.prompt(claim.job.request)) {
            machine.addLostAttempts(cost: cost)
        }
        if let interrupt { return interrupted(interrupt, receivedAt: context.loop.now) }
        if claim.attempt > 1 {
            continuation = Continuation(earlier, job: claim.job, route: candidates)
            output.append(continuation.map { .resumed(textOffset: $0.text.utf8.count) } ?? .restarted)
            request(.write(tokens: 0))
        }
        beginSpeech()
        if let finish = continuation?.finish {
            speech?.textEnded(finish)
            startTimer()
            return perform(machine.textIsComplete(finish, isSpeaking: isSpeaking))
        }
        if continuation != nil {
            // The clients keep the text they have, so only upstreams that can continue it are used.
            candidates.removeAll { $0.upstream.prefix == .none }
            machine.narrow(to: candidates.count)
        }
        // Without an upstream for the model nothing is recognized or retrieved in vain.
        if candidates.isEmpty || !beginPreparation(earlier) { perform(machine.begin()) }
    }

    /// Carries out an action of the machine.
    func perform(_ action: GenerationMachine.Action) {
        switch action {
        case .check:
            context.metrics.retries.increment()
            request(.readInterruptKey)
        case .dial(let index): dial(candidates[index])
        case .speak: break
        case .backOff(let wait):
            context.metrics.retries.increment()
            // The timer releases its closure when it fires or is cancelled.
            backoffTimer = context.loop.schedule(after: wait) {
                self.backoffTimer = nil
                self.request(.readInterruptKey)
            }
        case .end(let event): end(event)
        }
    }

    /// Sends the request to one upstream, if its breaker and the limits permit.
    func dial(_ candidate: UpstreamRoute.Candidate) {
        let (gate, now) = (context.gate, context.loop.now)
        // Before the limits: a place under them would be of no use.
        guard !gate.refuses(candidate, isForced: machine.ignoresOpenBreaker, at: now) else { return refused(by: candidate) }
        switch permission(for: candidate) {
        case .admitted: break
        case .asking:
            asked = candidate
            return startTimer()
        case .waiting:
            leaveSlot()
            return waitForUpstream(machine.limited(wait: Self.limitWait))
        }
        guard case .admitted(let pass) = gate.admit(candidate, isForced: machine.ignoresOpenBreaker, at: now) else {
            return refused(by: candidate)
        }
        self.pass = pass
        limitsAllow(candidate)
        var body = preparedBody ?? claim.job.request
        body["model"] = .string(candidate.model)
        var request = GenerationRequest(jobID: id, body: body)
        request.countsTokens = claim.job.countsTokens
        request.continuation = continuation?.prefix(for: candidate.upstream.kind)
        request.traceparent = claim.job.traceparent
        times.dialled(at: context.loop.now)
        startTimer()
        do {
            call = try context.upstream.start(request, on: candidate.upstream, receiver: self)
        } catch {
            releasePass()
            perform(machine.fail(error))
        }
    }

    /// Tries the next upstream, or backs off. The total timeout of the job also applies while it waits.
    private func waitForUpstream(_ action: GenerationMachine.Action) {
        perform(action)
        if machine.state == .backoff { startTimer() }
    }

    /// Keeps no place under the limits of an upstream whose breaker is open: it would hold up jobs for other models.
    private func refused(by candidate: UpstreamRoute.Candidate) {
        releaseUpstreamLimit(of: candidate)
        waitForUpstream(machine.refused(jitter: .random(in: 0.5...1)))
    }

    /// Tries again before the back-off is over: the job was admitted.
    func limitMayAllow() {
        guard let backoffTimer else { return }
        context.loop.cancel(backoffTimer)
        self.backoffTimer = nil
        request(.readInterruptKey)
    }

    /// Continues after the interrupt key was read: ends the job, or sends the request.
    func interruptChecked(_ interrupt: Interrupt?) {
        guard isLive else { return }
        if let interrupt { return interrupted(interrupt, receivedAt: context.loop.now) }
        guard stage == .running else { return }
        if let preparation { return preparation.checked() }
        if let action = machine.checked() { perform(action) }
    }

    // MARK: timers

    /// Starts the timer for the next timeout. There is one timer per generation: a token only updates `times`, and the timer reschedules
    /// itself when it fires early.
    func startTimer() {
        if let timer { context.loop.cancel(timer) }
        let now = context.loop.now
        let limit = times.next(in: machine.state, isReading: isReadingAnswer).at
        timer = context.loop.schedule(after: .nanoseconds(Int64(limit > now ? limit - now : 0))) {
            self.timer = nil
            self.timerFired()
        }
    }

    /// Fails the attempt or the job if a timeout has expired.
    private func timerFired() {
        guard stage == .running else { return }
        let limit = times.next(in: machine.state, isReading: isReadingAnswer)
        guard limit.at <= context.loop.now else { return startTimer() }
        // A job with a short time limit of its own must not open the circuit breaker for all others.
        if limit.failure.code == .firstTokenTimeout, !times.hasShortenedFirstTokenTimeout, let pass {
            context.gate.failed(pass, .firstTokenTimeout, at: context.loop.now)
        }
        closeCall()
        if limit.failure.code == .firstTokenTimeout {
            perform(
                machine.failed(
                    UpstreamFailure(failure: limit.failure), remaining: times.remaining(at: context.loop.now), jitter: .random(in: 0...1)))
            if isLive { startTimer() }
        } else {
            perform(machine.fail(limit.failure))
        }
    }

    /// Whether output of the upstream is waited for.
    private var isReadingAnswer: Bool { isReading && asked == nil && call?.isDraining != true }

    /// Cancels the timeout and the back-off.
    func cancelTimers() {
        if let timer { context.loop.cancel(timer) }
        if let backoffTimer { context.loop.cancel(backoffTimer) }
        timer = nil
        backoffTimer = nil
    }
}
