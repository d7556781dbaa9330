import Contract
import JobQueue
import Support

/// The conversation of a session beyond texts: what the user has heard.
extension SessionRegistry {
    // MARK: voice

    /// Checks a VOICE request at its beginning, and interrupts the running ones if it supersedes them: the user has begun to speak.
    /// - Throws: the ERROR to send.
    func admitVoice(_ payload: RequestPayload, in session: Session) throws(ProtocolError) {
        try admit(payload, to: session)
        guard payload.supersedes ?? session.settings.supersedes else { return }
        for request in session.running {
            request.silence()
            interrupt(request, in: session, reason: InterruptReason.userNewInput)
        }
    }

    /// Ends a VOICE request that was interrupted while its audio was coming in: nothing was submitted.
    func endUnsubmitted(_ payload: RequestPayload, as jobID: JobID, reason: String, in session: Session) {
        var machine = RelayMachine(
            requestID: payload.id, jobID: jobID, sessionID: session.id, wantsReasoning: false, speaks: session.settings.requiresSpeech)
        let event = GenerationEvent.interrupted(Interruption(reason: reason, phase: .queued, usage: .none))
        machine.receive([LoggedEvent(id: EventID(attempt: 1, sequence: 0), event: event)], milliseconds: WallClock.milliseconds) {
            session.socket?.send($0)
        }
        session.remember(EndedRequest(id: payload.id, jobID: jobID, ending: .interrupted))
        save(session, .ended)
    }

    /// The filter to the session's sample rate; nil for an answer without voice, which needs none.
    func voiceFilter(_ session: Session, speaks: Bool) -> ResamplingFilter? {
        guard speaks else { return nil }
        return voiceFilters.filter(to: session.settings.voiceRate ?? settings.voiceRate)
    }

    /// Handles PLAYED: records how much of an answer's voice the client has played.
    /// - Throws: SESSION_INVALID when the session does not know the request.
    func played(_ id: String, milliseconds: Int, in session: Session) throws(ProtocolError) {
        guard notePlayed(id, milliseconds: milliseconds, in: session) || session.endedRequest(id) != nil else {
            throw ProtocolError(.sessionInvalid, "the request is unknown", requestID: id)
        }
    }

    /// Records how much of a request's voice was played.
    /// - Returns: false when the request is neither running nor one of the last ones with a voice.
    @discardableResult
    func notePlayed(_ id: String, milliseconds: Int, in session: Session) -> Bool {
        if let request = session.request(id) {
            request.playedMilliseconds = milliseconds
            return true
        }
        guard session.history.played(id, milliseconds: milliseconds) else { return false }
        save(session, .history)
        return true
    }
}
