import Contract
import CoreMetrics
import CurlTransport
import JobQueue
import Metrics
import NIOCore
import Upstream

/// The metrics of a worker. Label values are bounded: no ids and no tenants.
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
    let recognitionFailed = Counter(label: "sluice_recognition_failed_total")
    let retrievalFailed = Counter(label: "sluice_retrieval_failed_total")
    /// Time from the audio, or the query, to the upstream's answer.
    private let recognitionTime = Timer(label: "sluice_recognition_seconds")
    private let retrievalTime = Timer(label: "sluice_retrieval_seconds")
    let cancelIgnored = Counter(label: "sluice_cancel_messages_ignored_total")
    /// Retries before the first token, at the same upstream or the next one.
    let retries = Counter(label: "sluice_upstream_retries_total")
    /// Tokens received after an interrupt closed the upstream. Must stay at 0.
    let tokensAfterInterrupt = Counter(label: "sluice_tokens_after_interrupt_total")
    /// Scheduling delay of the event loops.
    let upstreamLoopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "upstream")])
    let redisLoopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "redis")])
    /// Time from receiving an interrupt to closing the upstream's socket.
    private let interruptClosed = Timer(label: "sluice_interrupt_close_seconds")
    /// Requested maximum minus generated tokens of interrupted jobs; jobs without a maximum are not included.
    private let tokensSaved = Counter(label: "sluice_tokens_saved_total")
    /// Time from submission to the first claim.
    private let queueWait: [JobClass: Timer]
    /// Time from submission to the first output of any attempt.
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

    /// The gauges of one class.
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
            Counter(label: "sluice_jobs_dead_lettered_total", dimensions: [("code", $0.rawValue)])
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

    /// Publishes the state of a circuit breaker.
    /// - Parameters:
    ///   - upstream: a configured name.
    ///   - state: 0 closed, 1 probing, 2 open; the worst of the upstream and its models.
    func breaker(_ upstream: String, state: Int) {
        Gauge(label: "sluice_upstream_breaker_state", dimensions: [("upstream", upstream)]).record(state)
        // Creates the counter with the value 0 before the first opening.
        if state == 0 { opened(upstream).increment(by: 0) }
    }

    /// Counts an opened circuit breaker.
    /// - Parameter upstream: a configured name.
    func breakerOpened(_ upstream: String) { opened(upstream).increment() }

    private func opened(_ upstream: String) -> Counter {
        Counter(label: "sluice_upstream_breaker_opened_total", dimensions: [("upstream", upstream)])
    }

    /// Records the duration of a transcription.
    func recognition(nanoseconds: UInt64) { recognitionTime.recordNanoseconds(Int64(clamping: nanoseconds)) }
    /// Records the duration of a retrieval.
    func retrieval(nanoseconds: UInt64) { retrievalTime.recordNanoseconds(Int64(clamping: nanoseconds)) }

    /// Counts a terminal event.
    func finished(_ event: GenerationEvent) {
        ended[event.type]?.increment()
        tally.ended(event.type)
        if case .failed(let failure, _) = event { failures[failure.code]?.increment() }
    }

    /// Counts a job that the claim script ended, without running here.
    /// - Parameter code: the failure; nil for an interrupt.
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

    /// Counts a queue that could not be read.
    func queueUnreadable(_ priority: JobClass) { unreadable[priority]?.increment() }

    /// Counts a new dead letter.
    func deadLettered(_ code: FailureCode) { deadLettersMade[code]?.increment() }

    /// Records the queue wait of a first attempt.
    func waited(_ claim: Claim) {
        guard let submitted = claim.submittedMilliseconds else { return }
        let milliseconds = max(0, claim.claimedMilliseconds - submitted)
        queueWait[claim.entry.priority]?.recordMilliseconds(milliseconds)
        tally.queueWait.record(microseconds: milliseconds * 1_000)
    }

    /// Records the time to the first token.
    /// - Parameter milliseconds: the time of the first output on Redis' clock, since 1970.
    func firstToken(of claim: Claim, at milliseconds: Int) {
        guard let submitted = claim.submittedMilliseconds else { return }
        firstToken[claim.entry.priority]?.recordMilliseconds(max(0, milliseconds - submitted))
        tally.firstToken.record(microseconds: max(0, milliseconds - submitted) * 1_000)
    }

    /// Records an interrupt.
    /// - Parameters:
    ///   - hadCall: whether an upstream connection was open or being opened, and was closed.
    ///   - microseconds: time from receiving the interrupt to closing the connection.
    ///   - maximum: the job's maximum number of tokens.
    func interrupted(phase: Phase, hadCall: Bool, microseconds: Int, usage: Usage, maximum: Int?) {
        interruptClosed.recordMicroseconds(microseconds)
        tally.interruptClose.record(microseconds: microseconds)
        let counters = interrupts[phase]
        (hadCall ? counters?.closed : counters?.unopened)?.increment()
        if let maximum { tokensSaved.increment(by: max(0, maximum - usage.completionTokens)) }
    }

    /// Publishes the queue depth and the slots of this worker.
    /// - Parameter capacity: number of slots.
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
        // The entries are the waiting and the running jobs, because ended ones are removed. Unlike the lag, Redis always knows their
        // number.
        slotsWanted.record(Double(depth.entries) / Double(max(1, capacity)))
    }
}

extension Claim {
    /// Time of the submission on Redis' clock, milliseconds since 1970.
    var submittedMilliseconds: Int? { entry.id.split(separator: "-").first.flatMap { Int($0) } }
}

/// Measures the scheduling delay of the two event loops of a worker, once per second.
struct EventLoopLagProbe: Sendable {
    private static let period = TimeAmount.seconds(1)

    let eventLoop: any EventLoop
    let loop: EpollLoop
    let metrics: WorkerMetrics

    /// Starts measuring; cancel the returned task to stop.
    func start() -> RepeatedTask {
        let due = NIOLoopBoundBox.makeBoxSendingValue(NIODeadline.now() + Self.period, eventLoop: eventLoop)
        return eventLoop.scheduleRepeatedTask(initialDelay: Self.period, delay: Self.period) { [loop, metrics] _ in
            let now = NIODeadline.now()
            metrics.redisLoopDelay.recordNanoseconds(max(0, (now - due.value).nanoseconds))
            due.value = now + Self.period
            let handedOver = loop.now
            loop.execute { metrics.upstreamLoopDelay.recordNanoseconds(Int64(loop.now &- handedOver)) }
        }
    }
}
