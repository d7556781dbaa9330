import Contract
import JobQueue
import Metrics

/// What a worker counts. Labels are bounded: never an id, never a tenant.
struct WorkerMetrics: Sendable {
    let tally = WorkerTally()
    let tokens: TokenCounter
    let leasesLost = Counter(label: "sluice_leases_lost_total")
    let leasesRenewed = Counter(label: "sluice_leases_renewed_total")
    let takeovers = Counter(label: "sluice_takeovers_total")
    let claims = Counter(label: "sluice_jobs_claimed_total")
    let handBacks = Counter(label: "sluice_jobs_handed_back_total")
    let rejected = Counter(label: "sluice_entries_rejected_total")
    let speechFailed = Counter(label: "sluice_speech_failed_total")
    let cancelIgnored = Counter(label: "sluice_cancel_messages_ignored_total")
    /// Further tries before the first token, at the same upstream or at the next.
    let retries = Counter(label: "sluice_upstream_retries_total")
    /// Must stay at 0.
    let tokensAfterInterrupt = Counter(label: "sluice_tokens_after_interrupt_total")
    /// How much later than due a loop comes to its work.
    let upstreamLoopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "upstream")])
    let redisLoopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "redis")])
    /// From the worker's sight of the signal to the upstream's socket being closed.
    private let interruptClosed = Timer(label: "sluice_interrupt_close_seconds")
    /// From an interrupted job's output to the most that it had asked for; jobs that set no maximum are not in it.
    private let tokensSaved = Counter(label: "sluice_tokens_saved_total")
    /// From submission to the first claim.
    private let queueWait: [JobClass: Timer]
    /// From submission to the first output of whatever attempt.
    private let firstToken: [JobClass: Timer]
    private let ended: [String: Counter]
    private let failures: [FailureCode: Counter]
    private let deadLettersMade: [FailureCode: Counter]
    private let interrupts: [Phase: (closed: Counter, unopened: Counter)]
    private let queues: [JobClass: QueueGauges]
    private let unreadable: [JobClass: Counter]
    private let deadLetters = Gauge(label: "sluice_dead_letters")
    private let slots = Gauge(label: "sluice_slots")
    private let slotsWanted = Gauge(label: "sluice_slots_wanted")
    private let inFlight = Gauge(label: "sluice_jobs_in_flight")

    private struct QueueGauges: Sendable {
        let depth: Gauge
        let lag: Gauge
        let pending: Gauge
        let oldestWait: Gauge

        init(_ priority: JobClass) {
            func gauge(_ name: String) -> Gauge { Gauge(label: "sluice_queue_\(name)", dimensions: [("class", priority.rawValue)]) }
            depth = gauge("depth")
            lag = gauge("lag")
            pending = gauge("pending")
            oldestWait = gauge("oldest_wait_seconds")
        }
    }

    init() {
        func all<Key: Hashable, Value>(_ keys: some Sequence<Key>, _ make: (Key) -> Value) -> [Key: Value] {
            Dictionary(uniqueKeysWithValues: keys.map { ($0, make($0)) })
        }
        tokens = TokenCounter(tally)
        ended = all(["finished", "interrupted", "failed"]) { Counter(label: "sluice_jobs_ended_total", dimensions: [("outcome", $0)]) }
        failures = all(FailureCode.allCases) { Counter(label: "sluice_jobs_failed_total", dimensions: [("code", $0.rawValue)]) }
        deadLettersMade = all([.workerLost, .invalidRequest]) {
            Counter(label: "sluice_dead_letters_total", dimensions: [("code", $0.rawValue)])
        }
        interrupts = all(Phase.allCases) { phase in
            func counter(_ result: String) -> Counter {
                Counter(label: "sluice_interrupts_total", dimensions: [("phase", phase.rawValue), ("result", result)])
            }
            return (counter("closed"), counter("unopened"))
        }
        queueWait = all(JobClass.allCases) { Timer(label: "sluice_queue_wait_seconds", dimensions: [("class", $0.rawValue)]) }
        firstToken = all(JobClass.allCases) { Timer(label: "sluice_time_to_first_token_seconds", dimensions: [("class", $0.rawValue)]) }
        queues = all(JobClass.allCases) { QueueGauges($0) }
        unreadable = all(JobClass.allCases) { Counter(label: "sluice_queue_unreadable_total", dimensions: [("class", $0.rawValue)]) }
    }

    /// - Parameters:
    ///   - upstream: a name of the configuration.
    ///   - state: 0 closed, 1 one request finds out, 2 open; the worst of the upstream's and its models'.
    func breaker(_ upstream: String, state: Int) {
        Gauge(label: "sluice_upstream_breaker_state", dimensions: [("upstream", upstream)]).record(state)
        // There, at 0, before it is needed.
        if state == 0 { opened(upstream).increment(by: 0) }
    }

    /// - Parameter upstream: a name of the configuration.
    func breakerOpened(_ upstream: String) { opened(upstream).increment() }

    private func opened(_ upstream: String) -> Counter {
        Counter(label: "sluice_upstream_breaker_opened_total", dimensions: [("upstream", upstream)])
    }

    func finished(_ event: GenerationEvent) {
        ended[event.type]?.increment()
        tally.ended(event.type)
        if case .failed(let failure, _) = event { failures[failure.code]?.increment() }
    }

    /// By the claim script, without having run here.
    /// - Parameter code: nil: interrupted.
    func endedAtClaim(_ code: FailureCode?) {
        ended[code == nil ? "interrupted" : "failed"]?.increment()
        tally.ended(code == nil ? "interrupted" : "failed")
        guard let code else {
            interrupts[.queued]?.unopened.increment()
            return
        }
        failures[code]?.increment()
        if code == .workerLost { deadLettered(code) }
    }

    /// A queue's key could not be read.
    func queueUnreadable(_ priority: JobClass) { unreadable[priority]?.increment() }

    func deadLettered(_ code: FailureCode) { deadLettersMade[code]?.increment() }

    func waited(_ claim: Claim) {
        guard let submitted = claim.submittedMilliseconds else { return }
        let milliseconds = max(0, claim.claimedMilliseconds - submitted)
        queueWait[claim.entry.priority]?.recordMilliseconds(milliseconds)
        tally.queueWait.record(microseconds: milliseconds * 1_000)
    }

    /// - Parameter milliseconds: since 1970, on Redis' clock.
    func firstToken(of claim: Claim, at milliseconds: Int) {
        guard let submitted = claim.submittedMilliseconds else { return }
        firstToken[claim.entry.priority]?.recordMilliseconds(max(0, milliseconds - submitted))
        tally.firstToken.record(microseconds: max(0, milliseconds - submitted) * 1_000)
    }

    /// - Parameters:
    ///   - hadCall: an upstream was open, or being dialled, and was closed.
    ///   - maximum: tokens that the job asked for at most.
    func interrupted(phase: Phase, hadCall: Bool, microseconds: Int, usage: Usage, maximum: Int?) {
        interruptClosed.recordMicroseconds(microseconds)
        tally.interruptClose.record(microseconds: microseconds)
        let counters = interrupts[phase]
        (hadCall ? counters?.closed : counters?.unopened)?.increment()
        if let maximum { tokensSaved.increment(by: max(0, maximum - usage.completionTokens)) }
    }

    /// - Parameter capacity: jobs that this worker takes at once.
    func show(_ depth: QueueDepth, capacity: Int, inFlight count: Int) {
        for (priority, found) in depth.classes {
            guard let gauges = queues[priority] else { continue }
            gauges.depth.record(found.entries)
            gauges.lag.record(found.lag)
            gauges.pending.record(found.pending)
            gauges.oldestWait.record(Double(found.oldestWaitMilliseconds ?? 0) / 1_000)
        }
        deadLetters.record(depth.deadLetters)
        slots.record(capacity)
        inFlight.record(count)
        // Entries are what waits and what runs, also when Redis knows no lag: ended ones leave the queue.
        slotsWanted.record(Double(depth.entries) / Double(max(1, capacity)))
    }
}

extension Claim {
    /// When the queue's entry was made, on Redis' clock, since 1970.
    var submittedMilliseconds: Int? { entry.id.split(separator: "-").first.flatMap { Int($0) } }
}
