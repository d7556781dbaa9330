import Contract
import JobQueue
import Metrics
import NIOCore

/// The metrics of a gateway. Label values come from fixed sets, never ids or tenants. Static members are created on first use, which must
/// be after `MetricsSystem.bootstrap`.
enum GatewayMetrics {
    /// WebSockets whose upgrade succeeded.
    static let socketsOpened = Counter(label: "sluice_sockets_opened_total")
    /// WebSocket frames in each direction, control frames included.
    static let framesReceived = Counter(label: "sluice_frames_received_total")
    static let framesSent = Counter(label: "sluice_frames_sent_total")
    /// Connections closed because more than `SLUICE_MAX_OUTGOING` bytes were unsent.
    static let slowReaders = Counter(label: "sluice_slow_readers_closed_total")
    /// Binary frames outside of a VOICE request.
    static let audioFramesDropped = Counter(label: "sluice_audio_frames_dropped_total")
    /// How late a periodic task runs on the event loop. See `watch(_:)`.
    static let loopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "gateway")])
    private static let submitted = counters(
        "sluice_jobs_submitted_total", "outcome",
        ["accepted", "repeated", "full", "owner_full", "quota_exhausted", "conflict", "session_lost", "session_unsaved", "unavailable"])
    private static let interrupts = counters("sluice_interrupts_sent_total", "result", ["stored", "ended", "unknown", "unavailable"])

    /// Time from a client's INTERRUPT to the terminal event of its request, including Redis, the worker and closing the upstream
    /// connection. Measured with this gateway's monotonic clock only.
    private static let interruptCarriedOut = Timer(label: "sluice_interrupt_seconds")

    /// Jobs ended by an interrupt while still queued. Workers count the jobs that they end themselves.
    private static let endedInQueue = Counter(label: "sluice_jobs_ended_total", dimensions: [("outcome", "interrupted")])

    /// Registers the metrics with a value of 0, so that they are exported before their first event.
    static func begin() {
        for counter in [socketsOpened, framesReceived, framesSent, slowReaders, audioFramesDropped, endedInQueue] {
            counter.increment(by: 0)
        }
        _ = interruptCarriedOut
        for counter in [submitted["accepted"], interrupts["stored"]] { counter?.increment(by: 0) }
    }

    /// Counts one submission by its outcome.
    /// - Parameter submission: nil when Redis did not answer or answered with an error.
    static func submitted(_ submission: Submission?) {
        let outcome =
            switch submission {
            case .accepted, .exists: "accepted"
            case .repeated: "repeated"
            case .full: "full"
            case .ownerFull: "owner_full"
            case .quotaExhausted: "quota_exhausted"
            case .conflict: "conflict"
            case .sessionLost: "session_lost"
            case .sessionUnsaved: "session_unsaved"
            case nil: "unavailable"
            }
        submitted[outcome]?.increment()
    }

    /// Counts one interrupt by its result, and the job that it ended if that was still queued.
    /// - Parameter answer: nil when Redis did not answer in time.
    static func interrupted(_ answer: InterruptAnswer?) {
        let result =
            switch answer {
            case nil: "unavailable"
            case let answer? where answer.stored: "stored"
            case let answer?: answer.state == nil ? "unknown" : "ended"
            }
        interrupts[result]?.increment()
        if answer?.stored == true, answer?.state == .queued { endedInQueue.increment() }
    }

    /// Records the time since the client's first INTERRUPT for a request that has now ended as interrupted.
    static func interruptCarriedOut(since start: NIODeadline) {
        interruptCarriedOut.recordNanoseconds((NIODeadline.now() - start).nanoseconds)
    }

    /// Closes an HTTP connection whose client reads too slowly, and counts it.
    static func cut(_ channel: any Channel) {
        slowReaders.increment()
        Refusals.count(.http, code: "too_slow")
        channel.close(promise: nil)
    }

    /// Measures once per second how late a scheduled task runs on the loop.
    /// - Returns: the periodic task; the caller cancels it.
    static func watch(_ eventLoop: any EventLoop) -> RepeatedTask {
        let period = TimeAmount.seconds(1)
        let due = NIOLoopBoundBox.makeBoxSendingValue(NIODeadline.now() + period, eventLoop: eventLoop)
        return eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in
            let now = NIODeadline.now()
            loopDelay.recordNanoseconds(max(0, (now - due.value).nanoseconds))
            due.value = now + period
        }
    }

    /// - Returns: one counter per value of the dimension, by value.
    private static func counters(_ label: String, _ dimension: String, _ values: [String]) -> [String: Counter] {
        Dictionary(uniqueKeysWithValues: values.map { ($0, Counter(label: label, dimensions: [(dimension, $0)])) })
    }
}

/// Counter of rejected connections, messages and requests (`sluice_refusals_total`), by place and code.
enum Refusals {
    enum Place: String {
        /// A connection or upgrade request; the code is that of the HTTP error.
        case upgrade
        /// An open WebSocket; the code is that of the close frame.
        case socket
        /// A message answered with an ERROR; the code is its `error_code`.
        case message
        /// An HTTP request; the code is that of the HTTP error.
        case http
    }

    /// Counts one rejection.
    /// - Parameter code: from a fixed set; never text that a client sent.
    static func count(_ place: Place, code: String) {
        Counter(label: "sluice_refusals_total", dimensions: [("place", place.rawValue), ("code", code)]).increment()
    }
}
