import Contract

/// The conversation of a session beyond texts: what the user has heard.
extension SessionRegistry {
    // MARK: voice

    /// The filter to the session's sample rate.
    func voiceFilter(_ session: Session) -> ResamplingFilter? {
        voiceFilters.filter(to: session.settings.voiceRate ?? settings.voiceRate)
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
