import Contract
import CoreMetrics
import JSONCodec
import JobQueue
import Logging
import RedisClient
import Upstream

/// One job in the hands of this worker: carries out what its machine decides. Lives on the loop; every call comes from there. What it
/// writes stands in Generation+Writing, its voice in Generation+Voice, how it leaves this worker unfinished in Generation+Leaving.
final class Generation: UpstreamReceiver {
    let claim: Claim
    var id: JobID { claim.job.id }

    unowned let core: GenerationCore
    var machine: GenerationMachine
    var output: OutputWriter
    private var stops: [UpstreamRoute.Stop]
    var call: UpstreamCall?
    private var pass: UpstreamGate.Pass?
    var speech: SpeechRun?
    var reading = true
    /// What of earlier attempts this one goes on from.
    var continuation: Continuation?
    /// Tokens that had been generated when the last write began: those that stand in the log or are on their way there.
    var deliveredTokens: Int

    /// Stands in the core's list of generations that have something to write.
    var isMarked = false
    /// Stands among those whose next write is due later.
    var isHeld = false
    /// The newest event in the log is being asked for.
    var settling = false
    /// Was handed back, lost, or has ended: nothing is written any more.
    var isOver = false
    var handingBack = false

    var times: TimeLimits
    private var timer: LoopTimer?
    private var backoffTimer: LoopTimer?

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
    var upstreamName: String? { !times.hasFirstToken || stops.isEmpty ? nil : stops[machine.upstream].upstream.name }

    var renewal: LeaseRenewal { LeaseRenewal(id: id, entry: claim.entry, attempt: claim.attempt, progress: progress) }

    var progress: JobProgress {
        JobProgress(
            usage: usage, upstream: upstreamName, dialledMilliseconds: times.firstDialledMilliseconds,
            firstTokenMilliseconds: times.firstTokenMilliseconds)
    }

    // MARK: begin

    /// - Parameters:
    ///   - earlier: what earlier attempts logged; empty for the first one.
    ///   - interrupt: one that overtook the claim.
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
            // The readers keep their text: whoever cannot go on from it is of no use any more.
            stops.removeAll { $0.upstream.prefix == .none }
            machine.narrow(to: stops.count)
        }
        perform(machine.begin())
    }

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

    private func dial(_ stop: UpstreamRoute.Stop) {
        switch core.gate.admit(stop, isForced: machine.insists, at: core.loop.now) {
        case .admitted(let pass): self.pass = pass
        case .refused(let wait):
            perform(machine.refused(wait: wait, jitter: .random(in: 0.5...1)))
            // The time of the job runs on while it waits.
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

    /// The durable interrupt was asked for before a dial.
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
            // A closed call tells nothing more: this stays at 0, and is counted so that it can be seen to.
            if case .interrupted = ending { core.metrics.tokensAfterInterrupt.increment(by: chunks) }
            return
        }
        // Figures alone are no output: a provider may state the prompt's tokens before it generates, or fails.
        let begins = chunks > 0 && machine.produced(chunks: chunks)
        if begins {
            let stop = stops[machine.upstream]
            output.append(.upstream(name: stop.upstream.name, model: stop.model))
            if let pass { core.gate.succeeded(pass) }
        }
        if chunks > 0 {
            let isFirst = !times.hasFirstToken
            times.produced(at: core.loop.now)
            // The timer is set for the first token's limit: the next silence may be too long before that.
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

    /// Redis takes less than comes in: nothing more is read for a while.
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
            // An answer of nothing is an answer.
            let stop = stops[machine.upstream]
            output.append(.upstream(name: stop.upstream.name, model: stop.model))
        }
        if case .failed(let failure) = result {
            core.logger.info(
                "upstream failed",
                metadata: claim.job.facts([
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

    /// - Parameters:
    ///   - seenAt: when this process saw the signal, CLOCK_MONOTONIC ns.
    ///   - closedAt: when the upstream's connection was cut, ahead of this; nil: it was not.
    func interrupted(_ interrupt: Interrupt, seenAt: UInt64, closedAt: UInt64? = nil) {
        guard ending == nil, !isOver else { return }
        let phase = machine.phase
        let hadCall = call != nil
        closeCall()
        let speaks = speech != nil
        speech?.close()
        // A voice is closed here, after the text's connection.
        let latency = Int(((speaks ? nil : closedAt) ?? core.loop.now) &- seenAt) / 1_000
        let maximum = claim.job.maximumTokens
        guard
            let action = machine.interrupted(
                interrupt, latencyMicroseconds: latency, delivered: deliveredTokens, maximum: maximum)
        else { return }
        // Nobody shall see what comes after the interrupt; what was generated is in the usage.
        output.dropPending()
        core.metrics.interrupted(phase: phase, hadCall: hadCall, microseconds: latency, usage: usage, maximum: maximum)
        core.logger.info(
            hadCall ? "interrupt closed upstream" : "interrupt ended job",
            metadata: claim.job.facts(["phase": "\(phase.rawValue)", "latency_us": "\(latency)", "reason": "\(interrupt.reason)"]))
        perform(action)
    }

    private func end(_ event: GenerationEvent) {
        closeCall()
        speech?.close()
        cancelTimers()
        output.end(event)
        core.mark(self)
    }

    /// The upstream's socket is closed when this returns.
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

    /// One timer a generation; a token only moves a time in `times`, the timer finds that when it goes off.
    func startTimer() {
        if let timer { core.loop.cancel(timer) }
        let now = core.loop.now
        let limit = times.next(in: machine.state, reading: reading).at
        timer = core.loop.schedule(after: .nanoseconds(Int64(limit > now ? limit - now : 0))) { [unowned self] in
            timer = nil
            timeUp()
        }
    }

    private func timeUp() {
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

    func cancelTimers() {
        if let timer { core.loop.cancel(timer) }
        if let backoffTimer { core.loop.cancel(backoffTimer) }
        timer = nil
        backoffTimer = nil
    }
}
