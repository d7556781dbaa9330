import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore
import Support

/// Processing of requests: admits them, submits their jobs and relays the events to the client.
extension SessionRegistry {
    static let busy = ProtocolError(.serverBusy, "Redis is not reachable; try again", detail: "overloaded", retryable: true)

    private static let full = ProtocolError(.serverBusy, "the queue is full; try again later", detail: "overloaded", retryable: true)

    /// Not delivered to a client, since no socket is attached to a session that was taken over.
    private static let lost = ProtocolError(.serverBusy, "the session was taken over", detail: "overloaded", retryable: true)

    private static let ownerFull = ProtocolError(
        .serverBusy, "too many queued requests for this tenant; try again later", detail: "overloaded", retryable: true)

    private static let quotaExhausted = ProtocolError(
        .rateLimited, "the tokens of this tenant for this day are used up", detail: "quota_exhausted")

    private static let overQuota = ProtocolError(
        .rateLimited, "session quota exceeded; end some sessions or try again later", retryable: true)

    // MARK: submitting

    /// Handles a REQUEST: checks the limits, applies changes to the settings, and starts the request if it has a text. `submit` handles the
    /// result.
    /// - Throws: the ERROR to send, with the request's id; nothing was changed or started then.
    func request(_ payload: RequestPayload, in session: Session) throws(ProtocolError) {
        try start(payload, audio: nil, jobID: nil, in: session)
    }

    /// Handles a VOICE request whose audio is complete.
    /// - Parameter jobID: the new job's id.
    func request(_ payload: RequestPayload, speaking audio: [UInt8], as jobID: JobID, in session: Session) throws(ProtocolError) {
        try start(payload, audio: audio, jobID: jobID, in: session)
    }

    private func start(_ payload: RequestPayload, audio: [UInt8]?, jobID given: JobID?, in session: Session) throws(ProtocolError) {
        try admit(payload, to: session)
        let answered = try AnsweredCalls(
            payload.results, history: session.history, running: session.running, requestID: payload.id)
        try update(session, by: payload)
        guard !payload.isUpdateOnly else { return touch(session) }
        session.touch()
        let continuation = answered.record(in: &session.history)
        if continuation.changesHistory { save(session, .history) }
        let speaks = session.settings.requiresSpeech
        let body = GenerationRequest.body(
            settings: session.settings, history: session.history, turns: continuation.turns,
            text: payload.results.isEmpty ? payload.text : nil, model: payload.model)
        let jobID = given ?? JobID(partition: session.partition, milliseconds: UInt64(session.lastRequestMilliseconds))
        var job = Job(id: jobID, priority: .interactive, request: body, session: session.id, owner: session.owner)
        if speaks { job.speech = Job.Speech() }
        if audio != nil { job.recognition = Job.Recognition(format: payload.voice?.format ?? "pcm") }
        if settings.retrieves, session.settings.enablesRetrieval, payload.results.isEmpty {
            job.retrieval = Job.Retrieval(query: audio == nil ? payload.text : nil)
        }
        job.traceparent = session.socket?.traceparent
        var options = SubmitOptions()
        options.gateway = settings.name
        options.session = (session.epoch, SessionRecord.field(of: payload.id))
        var superseded: [RunningRequest] = []
        if payload.supersedes ?? session.settings.supersedes {
            superseded = session.running.filter { !$0.machine.isSilenced }
            for old in superseded { old.silence() }
            options.supersede = session.running.filter { $0.state == .running }.map(\.jobID)
            for old in session.running where old.state == .submitting {
                old.delayedInterrupts.append((InterruptReason.userNewInput, { _ in }))
            }
        }
        let machine = RelayMachine(
            requestID: payload.id, jobID: jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning, speaks: speaks,
            closesSilence: payload.update.asksForSpeech || !session.speechIsInherited, filter: voiceFilter(session, speaks: speaks))
        let request = RunningRequest(id: payload.id, jobID: jobID, text: payload.text, speaks: speaks, machine: machine)
        request.traceparent = job.traceparent
        request.restated = continuation.restated
        // Held until Redis answers.
        begin(
            request, job, options, audio: audio, holding: session.cost(of: payload.text) + payload.resultBytes, superseding: superseded,
            in: session)
    }

    /// Handles a request of another protocol, whose job is complete.
    /// - Parameters:
    ///   - id: unique in the session.
    ///   - audio: recognized by the job; nil: none.
    ///   - listener: receives the events; held weakly.
    /// - Throws: why the request is refused.
    func request(
        _ id: String, _ job: Job, audio: [UInt8]?, speaks: Bool, for listener: any RequestListener, in session: Session
    ) throws(ProtocolError) -> RunningRequest {
        let bytes = JSON.object(job.request).bytes.count
        try admit(id, bytes: bytes, supersedes: false, to: session)
        session.touch()
        var job = job
        job.traceparent = session.socket?.traceparent
        var options = SubmitOptions()
        options.gateway = settings.name
        options.session = (session.epoch, SessionRecord.field(of: id))
        let machine = RelayMachine(
            requestID: id, jobID: job.id, sessionID: session.id, wantsReasoning: false, speaks: speaks,
            filter: voiceFilter(session, speaks: speaks))
        // Without a text the request leaves no turn in the session's history.
        let request = RunningRequest(id: id, jobID: job.id, text: nil, speaks: speaks, machine: machine)
        request.traceparent = job.traceparent
        request.listener = listener
        begin(request, job, options, audio: audio, holding: bytes, in: session)
        return request
    }

    /// Follows a new request's job and submits it.
    /// - Parameters:
    ///   - bytes: what the request costs without its audio.
    ///   - superseded: the requests that were silenced for this one; they speak again if it is refused.
    private func begin(
        _ request: RunningRequest, _ job: Job, _ options: SubmitOptions, audio: [UInt8]?, holding bytes: Int,
        superseding superseded: [RunningRequest] = [], in session: Session
    ) {
        session.add(request)
        // Subscribe before the job is submitted, so that no event is missed.
        request.following = context.feed.followOnLoop(
            new: job.id, pace: pace(of: request, in: session), receive: receiver(of: request, in: session))
        let bytes = bytes + (audio?.count ?? 0)
        session.account.hold(bytes)
        session.account.charge(bytes)
        context.backgroundTasks.startOnLoop { [self, job, options] in
            await submit(job, options, audio: audio, for: request, superseding: superseded, in: session, holding: bytes)
        }
    }

    /// Submits the job of a started request and handles the result.
    /// - Parameter bytes: what the session's account holds until Redis answers.
    private func submit(
        _ job: Job, _ options: SubmitOptions, audio: [UInt8]?, for request: RunningRequest, superseding superseded: [RunningRequest],
        in session: Session, holding bytes: Int
    ) async {
        // The session ended before this task began. Nothing was submitted.
        guard request.state != .over else {
            session.account.release(bytes)
            return answerDelayedInterrupts(request, nil)
        }
        // Save the request before its job, in the same flush: if this gateway dies, the gateway that adopts the session needs it to resume
        // or interrupt the job. The submission script checks that it was saved.
        save(request, of: session)
        let refusal = await submit(job, options, audio: audio, for: request, in: session)
        session.account.release(bytes)
        if refusal == nil {
            context.logSubmitted(job)
        } else {
            for old in superseded { old.speakAgain() }
        }
        if request.state == .over { stopFollowing(request) }
        switch refusal {
        case nil:
            request.accepted()
            sendDelayedInterrupts(request, in: session)
        case _? where request.state == .over: answerDelayedInterrupts(request, nil)
        case let error?: refuse(request, in: session, request.exceedsQuota ? Self.overQuota : error)
        }
    }

    /// Submits a job. Repeats the submission for 30 s when Redis does not answer; the client stays connected and can interrupt the request
    /// meanwhile.
    /// - Returns: why the job does not run; nil when it was accepted.
    private func submit(
        _ job: Job, _ options: SubmitOptions, audio: [UInt8]?, for request: RunningRequest, in session: Session
    ) async -> ProtocolError? {
        let refusal = await submit(job, options, with: audio, for: request, in: session)
        if refusal != nil, audio != nil {
            do { try await context.queue.deleteAudio(of: job.id) } catch {
                context.logger.debug("failed to delete the audio of a refused job; it expires", metadata: ["error": "\(error)"])
            }
        }
        return refusal
    }

    private func submit(
        _ job: Job, _ options: SubmitOptions, with audio: [UInt8]?, for request: RunningRequest, in session: Session
    ) async -> ProtocolError? {
        do {
            if let audio {
                let stored: Void? = await RetryPolicy.seconds(30).run { () async throws(QueueError) in
                    try await context.queue.storeAudio(audio, of: job)
                }
                guard stored != nil else { return Self.busy }
            }
            let submission = try await context.submit(job, options: options, repeating: .seconds(30)) {
                // Redis has lost the session or its last write.
                guard !request.exceedsQuota, !session.isOver else { return false }
                recreate(session)
                return true
            }
            switch submission {
            case .accepted, .repeated, .exists: return nil
            case .full, .conflict: return Self.full
            case .ownerFull: return Self.ownerFull
            case .quotaExhausted: return Self.quotaExhausted
            case .sessionLost: return Self.lost
            case .sessionUnsaved: return Self.busy
            }
        } catch {
            return Self.busy
        }
    }

    /// Checks the limits of session and tenant.
    func admit(_ payload: RequestPayload, to session: Session) throws(ProtocolError) {
        let bytes = session.cost(of: payload.text) + payload.resultBytes
        guard payload.isUpdateOnly else {
            return try admit(payload.id, bytes: bytes, supersedes: payload.supersedes ?? session.settings.supersedes, to: session)
        }
        try requireRoom(for: bytes, of: payload.id, in: session)
    }

    /// Checks the limits of session and tenant for a request that starts a job.
    private func admit(_ id: String, bytes: Int, supersedes: Bool, to session: Session) throws(ProtocolError) {
        func refusal(_ code: ErrorCode, _ message: String, retryable: Bool = false) -> ProtocolError {
            ProtocolError(code, message, retryable: retryable, requestID: id)
        }
        guard session.request(id) == nil, session.endedRequest(id) == nil else {
            throw refusal(.duplicateRequest, "the request_id is taken")
        }
        guard !context.readiness.isDraining else { throw refusal(.serverBusy, "the server is shutting down", retryable: true) }
        // Superseded requests may still be running while they are interrupted, so a client that types fast gets twice the limit.
        let maximum = supersedes ? 2 * settings.requestsPerSocket : settings.requestsPerSocket
        guard session.running.count < maximum else {
            throw refusal(.rateLimited, "the session already has \(settings.requestsPerSocket) running requests", retryable: true)
        }
        // A superseding request replaces a running one, so the tenant's limit does not apply.
        guard context.tenants.hasRoom(session.owner) || supersedes && !session.running.isEmpty else {
            throw refusal(.rateLimited, "too many running requests for this tenant", retryable: true)
        }
        try requireRoom(for: bytes, of: id, in: session)
    }

    private func requireRoom(for bytes: Int, of id: String, in session: Session) throws(ProtocolError) {
        guard session.account.hasRoom(for: bytes) else {
            throw ProtocolError(
                .rateLimited, "too many bytes of requests in memory for this tenant", retryable: true, requestID: id)
        }
    }

    /// Applies and saves a request's changes to the session's settings.
    private func update(_ session: Session, by payload: RequestPayload) throws(ProtocolError) {
        guard !payload.update.isEmpty else { return }
        // An update parses and writes all settings, even when its message is small.
        session.account.charge(session.settingsText.utf8.count)
        do {
            let changed = try payload.update.applied(to: session.settings, maximumSize: settings.sessionMaximum)
            if payload.update.setsSpeech || !changed.requiresSpeech {
                session.speechIsInherited = false
            } else if payload.update.asksForSpeech, !session.settings.requiresSpeech {
                session.speechIsInherited = true
            }
            if changed != session.settings {
                session.settings = changed
                save(session, .settings)
            }
        } catch {
            var error = error
            error.requestID = payload.id
            throw error
        }
    }

    /// Rejects a request whose job does not run. The client may use its request id again.
    func refuse(_ request: RunningRequest, in session: Session, _ error: ProtocolError) {
        guard session.remove(request) else { return }
        stopFollowing(request)
        var error = error
        error.requestID = request.id
        // A client that reconnected gets its ERROR in reply to RESUME, not a second one here.
        if let listener = request.listener {
            listener.refused(request, error)
        } else if !request.isMuted {
            session.socket?.send(error)
        }
        answerDelayedInterrupts(request, nil)
        save(session, [], deleting: request)
        session.socket?.requestEnded()
        forgetIfIdle(session)
    }

    // MARK: relaying

    /// - Returns: a handler for the job's events, valid until the request's next RESUME (`generation`).
    func receiver(of request: RunningRequest, in session: Session) -> @Sendable ([LoggedEvent]) -> Void {
        let bound = NIOLoopBound((self, request, session), eventLoop: eventLoop)
        let generation = request.generation
        return { events in
            let (registry, request, session) = bound.value
            registry.receive(events, of: request, in: session, generation)
        }
    }

    /// - Returns: the pace of the request's client, for events that are read from the log.
    func pace(of request: RunningRequest, in session: Session) -> EventFeed.Pace {
        let bound = NIOLoopBound((request, session), eventLoop: eventLoop)
        return { next in
            let (request, session) = bound.value
            if !request.isMuted, let socket = session.socket { socket.whenRead(next) } else { next() }
        }
    }

    /// Relays events to the client and ends the request on its terminal event.
    func receive(_ events: [LoggedEvent], of request: RunningRequest, in session: Session, _ generation: Int) {
        guard request.wantsEvents(for: generation) else { return }
        let socket = request.isMuted || request.listener != nil ? nil : session.socket
        request.machine.receive(events, milliseconds: WallClock.milliseconds, emit: socket.map { socket in { socket.send($0) } })
        let ending = request.machine.ending.flatMap { session.remove(request) ? $0 : nil }
        // After its removal: the listener may start another request.
        request.listener?.received(events, of: request)
        if let ending { ended(request, in: session, ending) }
    }

    /// Records an ended request in the session and its history.
    private func ended(_ request: RunningRequest, in session: Session, _ ending: EndedRequest.Ending) {
        if ending == .interrupted, let start = request.interruptedAt { GatewayMetrics.interruptCarriedOut(since: start) }
        session.remember(EndedRequest(id: request.id, jobID: request.jobID, ending: ending))
        var fields: UnsavedChanges.Fields = .ended
        // A request that failed without output is not added to the history; the client is expected to repeat it.
        let hasOutput = !request.machine.answer.isEmpty || !request.machine.calls.isEmpty
        if let turn = request.turn, settings.historyTurns > 0, hasOutput || ending != .failed && !turn.user.isEmpty {
            session.history.append(turn)
            fields.insert(.history)
        }
        // The feed has already stopped following the job.
        request.following = nil
        save(session, fields, deleting: request)
        session.socket?.requestEnded()
        forgetIfIdle(session)
    }

    /// Unsubscribes from the events of a request's job.
    func stopFollowing(_ request: RunningRequest) {
        guard let following = request.following else { return }
        request.following = nil
        context.feed.stop(following)
    }
}
