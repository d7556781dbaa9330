import Contract
import JobQueue
import NIOCore

/// Receives the events of a request instead of the session's socket, for a protocol other than the WebSocket protocol.
protocol RequestListener: AnyObject {
    /// Called after the request's machine has received the events. The request is over when the last of them is the terminal one.
    func received(_ events: [LoggedEvent], of request: RunningRequest)
    /// The job does not run.
    func refused(_ request: RunningRequest, _ error: ProtocolError)
}

/// A request whose job has not ended, as far as this gateway knows. Confined to the event loop.
///
/// `state` is the one place that says whether the request is over. Everything that arrives later asks it: the reply to the submission, events,
/// pages of a replay.
final class RunningRequest {
    enum State {
        /// Redis has not answered the submission. Interrupts wait in `delayedInterrupts`. Next: `running`, `over`.
        case submitting
        /// Redis has the job. Next: `over`.
        case running
        /// The request ended or was rejected, or its session is over. Final: no event is relayed any more. Interrupts that waited for the
        /// submission are still sent when it is answered.
        case over
    }

    let id: String
    let jobID: JobID
    /// The user's message; nil after a takeover when it was too long to be stored.
    let text: String?
    var textBytes: Int { text?.utf8.count ?? 0 }
    /// Calls of earlier turns that this request answers although other turns followed them.
    var restated: [ChatHistory.Call] = []
    /// Results of this request's calls that arrived before its end, by call id.
    var results: [String: String] = [:]
    /// How much of the voice the client has played, in milliseconds; nil when it has not said.
    var playedMilliseconds: Int?
    /// Whether the answer includes speech.
    let speaks: Bool
    private(set) var state: State
    /// Whether the request was not stored because the owner's session quota is used up; its submission then fails.
    var exceedsQuota = false
    /// The job's trace context; nil when another gateway submitted it.
    var traceparent: String?
    var machine: RelayMachine
    /// Receives the events; nil: the session's socket does.
    weak var listener: (any RequestListener)?
    /// The subscription to the job's events; nil before it starts and after the job's end.
    var following: Following?
    /// Whether frames are withheld, because the client is disconnected or has not resumed this request yet.
    var isMuted = false
    /// Raised by every RESUME; events delivered for an older generation are dropped.
    private(set) var generation = 0
    /// Time of the first INTERRUPT; nil when there was none.
    var interruptedAt: NIODeadline?
    /// Interrupts to send once Redis has the job.
    var delayedInterrupts: [(reason: String, then: (InterruptAnswer?) -> Void)] = []
    /// Completions that share the answer to the interrupt in flight; empty: none is in flight.
    var interruptCompletions: [(InterruptAnswer?) -> Void] = []
    /// Whether an interrupt whose acknowledgement is overdue is still being retried.
    var isRetryingInterrupt = false

    /// - Parameter state: `.submitting` for a new request, `.running` for one of a claimed session.
    init(id: String, jobID: JobID, text: String?, speaks: Bool, machine: RelayMachine, state: State = .submitting) {
        self.id = id
        self.jobID = jobID
        self.text = text
        self.speaks = speaks
        self.machine = machine
        self.state = state
    }

    /// The turn so far, for the history; nil when the user's message is not known.
    var turn: ChatHistory.Turn? {
        guard let text else { return nil }
        var turn = ChatHistory.Turn(user: machine.transcript ?? text, text: machine.answer, calls: machine.calls, restated: restated)
        for (id, result) in results { turn.setResult(result, of: id) }
        if speaks {
            turn.requestID = id
            turn.spoken = machine.spoken
            if let playedMilliseconds { turn.played(playedMilliseconds) }
        }
        return turn
    }

    /// What is stored in the session's record.
    var record: SessionRecord.Running { SessionRecord.Running(id: id, jobID: jobID, text: text, speaks: speaks) }

    /// Redis has accepted the job. No effect when the request is over.
    func accepted() { if state == .submitting { state = .running } }

    /// Ends the request. Called by `Session` only, which also stops counting it.
    func end() { state = .over }

    /// Starts to relay to a client that has the events up to `known`, with a new generation.
    /// - Parameter machine: has received nothing yet.
    func restart(_ machine: RelayMachine) {
        generation += 1
        isMuted = false
        let isSilenced = self.machine.isSilenced
        self.machine = machine
        self.machine.isSilenced = isSilenced
    }

    /// Sends no further voice: the client has interrupted or superseded the request, and audio that is on its way would be heard.
    func silence() { machine.isSilenced = true }

    /// Sends voice again: the request that should have superseded this one was refused, so this one goes on.
    func speakAgain() { machine.isSilenced = false }

    /// Whether events that were requested for `generation` are still to be relayed.
    func wantsEvents(for generation: Int) -> Bool { state != .over && generation == self.generation }
}
