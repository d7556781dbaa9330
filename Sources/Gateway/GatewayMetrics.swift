import Contract
import JobQueue
import Metrics
import NIOCore

/// What a gateway counts. Labels are bounded: never an id, never a tenant. One set a process, made at its first use, which is after the
/// metrics system was chosen.
enum GatewayMetrics {
    static let socketsOpened = Counter(label: "sluice_sockets_opened_total")
    static let framesReceived = Counter(label: "sluice_frames_received_total")
    static let framesSent = Counter(label: "sluice_frames_sent_total")
    /// Closed by the gateway because more than SLUICE_MAX_OUTGOING was unread.
    static let slowReaders = Counter(label: "sluice_slow_readers_closed_total")
    static let loopDelay = Timer(label: "sluice_event_loop_delay_seconds", dimensions: [("loop", "gateway")])
    private static let submitted = counters(
        "sluice_jobs_submitted_total", "outcome",
        ["accepted", "repeated", "full", "owner_full", "conflict", "session_lost", "session_unsaved", "unavailable"])
    private static let interrupts = counters("sluice_interrupts_sent_total", "result", ["stored", "ended", "unknown", "unavailable"])

    /// From a client's INTERRUPT to its request's last event, with all that lies between: Redis, the worker, the upstream's close and the
    /// way back. Of this gateway's clock alone.
    private static let interruptCarriedOut = Timer(label: "sluice_interrupt_seconds")

    /// By an interrupt that found them in the queue; what workers end, workers count.
    private static let endedInQueue = Counter(label: "sluice_jobs_ended_total", dimensions: [("outcome", "interrupted")])

    /// Makes those that have no other moment, so that they are there, at 0, from the start.
    static func begin() {
        for counter in [socketsOpened, framesReceived, framesSent, slowReaders, endedInQueue] { counter.increment(by: 0) }
        _ = interruptCarriedOut
        for counter in [submitted["accepted"], interrupts["stored"]] { counter?.increment(by: 0) }
    }

    /// - Parameter submission: nil: Redis did not answer, or only with an error.
    static func submitted(_ submission: Submission?) {
        let outcome =
            switch submission {
            case .accepted, .exists: "accepted"
            case .repeated: "repeated"
            case .full: "full"
            case .ownerFull: "owner_full"
            case .conflict: "conflict"
            case .sessionLost: "session_lost"
            case .sessionUnsaved: "session_unsaved"
            case nil: "unavailable"
            }
        submitted[outcome]?.increment()
    }

    /// - Parameter answer: nil: Redis did not answer in time.
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

    static func interruptCarriedOut(since asked: NIODeadline) {
        interruptCarriedOut.recordNanoseconds((NIODeadline.now() - asked).nanoseconds)
    }

    /// Closes an HTTP connection whose client does not read.
    static func cut(_ channel: any Channel) {
        slowReaders.increment()
        Refusals.count(.http, code: "too_slow")
        channel.close(promise: nil)
    }

    /// Measures once a second how much later than due the loop comes to its work. To be cancelled.
    static func watch(_ eventLoop: any EventLoop) -> RepeatedTask {
        let period = TimeAmount.seconds(1)
        let due = NIOLoopBoundBox.makeBoxSendingValue(NIODeadline.now() + period, eventLoop: eventLoop)
        return eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in
            let now = NIODeadline.now()
            loopDelay.recordNanoseconds(max(0, (now - due.value).nanoseconds))
            due.value = now + period
        }
    }

    private static func counters(_ label: String, _ dimension: String, _ values: [String]) -> [String: Counter] {
        Dictionary(uniqueKeysWithValues: values.map { ($0, Counter(label: label, dimensions: [(dimension, $0)])) })
    }
}
