import Contract
import CoreMetrics
import CurlTransport
import JSONCodec
import JobQueue
import Logging
import RedisClient
import Upstream

/// One running job: carries out the actions of its `GenerationMachine`. Not thread-safe: used on the upstream loop only. See also
/// Generation+Writing (output), Generation+Voice (speech) and Generation+Leaving (stopping without an end).
final class Generation: UpstreamReceiver {
    let claim: Claim
    var id: JobID { claim.job.id }

    unowned let core: GenerationCore
    var machine: GenerationMachine
    var output: OutputWriter
    /// The upstreams that may still be used, in order of preference.
    private var stops: [UpstreamRoute.Stop]
    var call: UpstreamCall?
    /// The permission for the current request.
    private var pass: UpstreamGate.Pass?
    var speech: SpeechRun?
    /// False while reading from the upstream is paused by back pressure.
    var reading = true
    /// The output of earlier attempts that this one continues; nil: it starts from the beginning.
    var continuation: Continuation?
    /// Number of tokens generated when the last write began, that is tokens in the log or on their way to it.
    var deliveredTokens: Int

    /// Is in the list of generations with output to write.
    var isMarked = false
    /// Its next write is deferred.
    var isHeld = false
    /// The newest id of the log is being read.
    var settling = false
    /// Was handed back, lost, or has ended: nothing more is written.
    var isOver = false
    /// A hand-back follows as soon as the collected output is written.
    var handingBack = false

    /// Timeouts and timestamps of the job.
    var times: TimeLimits
    private var timer: LoopTimer?
    private var backoffTimer: LoopTimer?

    /// - Parameters:
    ///   - claim: the claimed job.
    ///   - core: must outlive the generation.
    init(claim: Claim, core: GenerationCore) {
        self.claim = claim
        self.core = core
        stops = core.route.stops(for: claim.job.model ?? core.settings.defaultModel)
        machine = GenerationMachine(
            policy: GenerationMachine.Policy(
                retries: core.settings.retries, backoff: core.settings.backoff, upstreams: stops.count,
                promptEstimate: TokenEstimate.prompt(claim.job.request)),
            earlier: claim.earlierUsage)
        output = OutputWriter(claim, settings: core.queueSettings)
        deliveredTokens = claim.earlierUsage?.completionTokens ?? 0
        times = TimeLimits(claim: claim, settings: core.settings, now: core.loop.now)
    }

    var phase: Phase { machine.phase }
    var usage: Usage { machine.usage }
    var ending: GenerationEvent? { output.ending }
    var troubles: Int { output.troubles }
    /// The upstream of the current answer; nil before the first token.
    var upstreamName: String? { !times.hasFirstToken || stops.isEmpty ? nil : stops[machine.upstream].upstream.name }

    /// The lease renewal of this attempt, with its progress.
    var renewal: LeaseRenewal { LeaseRenewal(id: id, entry: claim.entry, attempt: claim.attempt, progress: progress) }

    /// The progress for the job record.
    var progress: JobProgress {
        JobProgress(
            usage: usage, upstream: upstreamName, dialledMilliseconds: times.firstDialledMilliseconds,
            firstTokenMilliseconds: times.firstTokenMilliseconds)
    }

    // MARK: begin

    /// Starts the job.
    /// - Parameters:
    ///   - earlier: the event log of earlier attempts; empty for the first one.
    ///   - interrupt: an interrupt that arrived during the claim.
    func begin(earlier: [LoggedEvent], interrupt: Interrupt?) {
        if claim.crashes > 0, let cost = TokenEstimate.logged(earlier, prompt: TokenEstimate.prompt(claim.job.request)) {
            machine.lostAttempts(cost: cost)
        }
        if let interrupt { return interrupted(interrupt, seenAt: core.loop.now) }
        if claim.attempt > 1 {
            continuation = Continuation(earlier, job: claim.job, route: stops)
            output.append(continuation.map { .resumed(textOffset: $0.text.utf8.count) } ?? .restarted)
            core.mark(self)
        }
        beginSpeech()
        if let finish = continuation?.finish {
            speech?.textEnded(finish)
            startTimer()
            return perform(machine.textIsWhole(finish, voiceRuns: isSpeaking))
        }
        if continuation != nil {
            // The clients keep the text they have, so only upstreams that can continue it are used.
            stops.removeAll { $0.upstream.prefix == .none }
            machine.narrow(to: stops.count)
        }
        perform(machine.begin())
    }

    /// Carries out an action of the machine.
    func perform(_ action: GenerationMachine.Action) {
        switch action {
        case .check:
            core.metrics.retries.increment()
            core.checkInterrupt(self)
        case .dial(let index): dial(stops[index])
        case .speak: break
        case .backOff(let wait):
            core.metrics.retries.increment()
            backoffTimer = core.loop.schedule(after: wait) { [unowned self] in
                backoffTimer = nil
                core.checkInterrupt(self)
            }
        case .end(let event): end(event)
        }
    }

    /// Sends the request to one upstream, if its breaker and limits permit.
    private func dial(_ stop: UpstreamRoute.Stop) {
        switch core.gate.admit(stop, isForced: machine.insists, at: core.loop.now) {
        case .admitted(let pass): self.pass = pass
        case .refused(let wait):
            perform(machine.refused(wait: wait, jitter: .random(in: 0.5...1)))
            // The total timeout of the job also applies while it waits.
            if machine.state == .backoff { startTimer() }
            return
        }
        var body = claim.job.request
        body["model"] = .string(stop.model)
        var request = GenerationRequest(jobID: id, body: body)
        request.continuation = continuation?.shown(to: stop.upstream.kind)
        request.traceparent = claim.job.traceparent
        times.dialled(at: core.loop.now)
        startTimer()
        do {
            call = try core.upstream.start(request, on: stop.upstream, receiver: self)
        } catch {
            releasePass()
            perform(machine.fail(error))
        }
    }

    /// Continues after the interrupt key was read: ends the job, or sends the request.
    func interruptChecked(_ interrupt: Interrupt?) {
        guard !isOver, ending == nil else { return }
        if let interrupt { return interrupted(interrupt, seenAt: core.loop.now) }
        guard !handingBack else { return }
        if let action = machine.checked() { perform(action) }
    }

    // MARK: UpstreamReceiver

    func upstreamConnected() { machine.connected() }

    func upstreamAnswered() {}

    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int) {
        guard ending == nil, !isOver else {
            // A closed call delivers nothing, so this counter stays at 0. It is counted to make that observable.
            if case .interrupted = ending { core.metrics.tokensAfterInterrupt.increment(by: chunks) }
            return
        }
        // Token counts alone are not output: a provider may report the prompt's tokens before it generates or fails.
        let begins = chunks > 0 && machine.produced(chunks: chunks)
        if begins {
            let stop = stops[machine.upstream]
            output.append(.upstream(name: stop.upstream.name, model: stop.model))
            if let pass { core.gate.succeeded(pass) }
        }
        if chunks > 0 {
            let isFirst = !times.hasFirstToken
            times.produced(at: core.loop.now)
            // The timer is set to the first-token timeout; the idle timeout may expire earlier.
            if begins { startTimer() }
            if isFirst, let at = times.firstTokenMilliseconds { core.metrics.firstToken(of: claim, at: at) }
        }
        core.metrics.tokens.increment(by: chunks)
        core.count(chunks)
        for piece in outputs {
            switch piece {
            case .text(let piece):
                let text = continuation?.new(in: piece) ?? piece
                guard !text.isEmpty else { continue }
                output.append(.text(text))
                speech?.heard(text)
            case .reasoning(let text): output.append(.reasoning(text))
            case .toolCall(let toolCall): output.append(.toolCall(toolCall))
            case .usage(let prompt, let completion): machine.reported(promptTokens: prompt, completionTokens: completion)
            case .finished(let reason): machine.finished(reason)
            }
        }
        core.mark(self)
        if output.bytes > core.queueSettings.logMaximum {
            closeCall()
            let limit = core.queueSettings.logMaximum
            perform(machine.fail(Failure(.outputTooLarge, "the answer's events exceed \(limit) bytes (SLUICE_LOG_MAX)")))
        } else {
            holdBack()
        }
    }

    /// Pauses reading from the upstream while too much output is unwritten.
    func holdBack() {
        guard output.unwrittenBytes > OutputLog.highWater else { return }
        speech?.pause()
        guard reading else { return }
        reading = false
        call?.pauseReading()
    }

    func upstreamEnded(_ result: UpstreamResult) {
        call = nil
        reading = true
        if let pass {
            if case .failed(let failure) = result {
                core.gate.failed(pass, failure.failure.code, at: core.loop.now)
            } else {
                core.gate.succeeded(pass)
            }
        }
        releasePass()
        guard ending == nil, !isOver else { return }
        if case .complete = result, machine.produced(chunks: 0) {
            // An empty answer counts as an answer.
            let stop = stops[machine.upstream]
            output.append(.upstream(name: stop.upstream.name, model: stop.model))
        }
        if case .failed(let failure) = result {
            core.logger.info(
                "upstream failed",
                metadata: claim.job.logMetadata([
                    "code": "\(failure.failure.code.rawValue)", "status": "\(failure.failure.upstreamStatus ?? 0)",
                    "upstream": "\(stops[machine.upstream].upstream.name)", "upstream_request": "\(failure.requestID ?? "")",
                ]))
        }
        if case .complete = result { speech?.textEnded(machine.finishReason) }
        perform(
            machine.upstreamEnded(
                result, remaining: times.remaining(at: core.loop.now), jitter: .random(in: 0...1), voiceRuns: isSpeaking))
    }

    // MARK: interrupts and the end

    /// Closes the upstream connection and ends the job as interrupted.
    /// - Parameters:
    ///   - seenAt: when this process received the interrupt, CLOCK_MONOTONIC ns.
    ///   - closedAt: when another thread closed the upstream's connection before this call; nil if it did not.
    func interrupted(_ interrupt: Interrupt, seenAt: UInt64, closedAt: UInt64? = nil) {
        guard ending == nil, !isOver else { return }
        let phase = machine.phase
        let hadCall = call != nil
        closeCall()
        let hadSpeech = speech != nil
        speech?.close()
        // Speech connections are closed here, after the connection of the text.
        let latency = Int(((hadSpeech ? nil : closedAt) ?? core.loop.now) &- seenAt) / 1_000
        let maximum = claim.job.maximumTokens
        guard
            let action = machine.interrupted(
                interrupt, latencyMicroseconds: latency, delivered: deliveredTokens, maximum: maximum)
        else { return }
        // No output follows an interrupt; the usage still includes the generated tokens.
        output.dropPending()
        core.metrics.interrupted(phase: phase, hadCall: hadCall, microseconds: latency, usage: usage, maximum: maximum)
        core.logger.info(
            hadCall ? "interrupt closed upstream" : "interrupt ended job",
            metadata: claim.job.logMetadata(["phase": "\(phase.rawValue)", "latency_us": "\(latency)", "reason": "\(interrupt.reason)"]))
        perform(action)
    }

    /// Closes all connections and writes the terminal event.
    private func end(_ event: GenerationEvent) {
        closeCall()
        speech?.close()
        cancelTimers()
        output.end(event)
        core.mark(self)
    }

    /// Closes the upstream connection before it returns, and cancels a pending back-off.
    func closeCall() {
        call?.cancel()
        call = nil
        releasePass()
        reading = true
        if let backoffTimer { core.loop.cancel(backoffTimer) }
        backoffTimer = nil
    }

    private func releasePass() {
        if let pass { core.gate.release(pass, at: core.loop.now) }
        pass = nil
    }

    // MARK: time

    /// Starts the timer for the next timeout. There is one timer per generation: a token only updates `times`, and the timer reschedules
    /// itself when it fires early.
    func startTimer() {
        if let timer { core.loop.cancel(timer) }
        let now = core.loop.now
        let limit = times.next(in: machine.state, reading: reading).at
        timer = core.loop.schedule(after: .nanoseconds(Int64(limit > now ? limit - now : 0))) { [unowned self] in
            timer = nil
            timerFired()
        }
    }

    /// Fails the attempt or the job if a timeout has expired.
    private func timerFired() {
        guard ending == nil, !isOver, !handingBack else { return }
        let limit = times.next(in: machine.state, reading: reading)
        guard limit.at <= core.loop.now else { return startTimer() }
        if limit.failure.code == .firstTokenTimeout, let pass { core.gate.failed(pass, .firstTokenTimeout, at: core.loop.now) }
        closeCall()
        if limit.failure.code == .firstTokenTimeout {
            perform(
                machine.failed(
                    UpstreamFailure(failure: limit.failure), remaining: times.remaining(at: core.loop.now), jitter: .random(in: 0...1)))
            if ending == nil { startTimer() }
        } else {
            perform(machine.fail(limit.failure))
        }
    }

    /// Cancels the timeout and the back-off.
    func cancelTimers() {
        if let timer { core.loop.cancel(timer) }
        if let backoffTimer { core.loop.cancel(backoffTimer) }
        timer = nil
        backoffTimer = nil
    }
}
