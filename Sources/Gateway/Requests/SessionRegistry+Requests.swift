import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient
import Support

/// Processing of requests: submits their jobs, relays the events to the client, and replays them on RESUME.
extension SessionRegistry {
    /// A request with its session and host, for closures. Confined to the event loop.
    struct Subject {
        let host: SessionRegistry
        let session: Session
        let request: RunningRequest
    }

    /// The result of a submission.
    private enum Outcome: Sendable {
        case accepted
        case refused(ProtocolError)
    }

    static let busy = ProtocolError(.serverBusy, "Redis is not reachable; try again", detail: "overloaded", retryable: true)

    private static let full = ProtocolError(.serverBusy, "the queue is full; try again later", detail: "overloaded", retryable: true)

    /// Not delivered to a client, since no socket is attached to a session that was taken over.
    private static let lost = ProtocolError(.serverBusy, "the session was taken over", detail: "overloaded", retryable: true)

    private static let ownerFull = ProtocolError(
        .serverBusy, "too many queued requests for this tenant; try again later", detail: "overloaded", retryable: true)

    private static let overQuota = ProtocolError(
        .rateLimited, "session quota exceeded; end some sessions or try again later", retryable: true)

    // MARK: submitting

    /// Starts a request: builds its job, follows the job's events and submits it.
    func start(_ payload: RequestPayload, in session: Session) {
        session.touch()
        let speaks = payload.requiresSpeech ?? session.settings.requiresSpeech
        let body = GenerationRequest.body(settings: session.settings, history: session.history, text: payload.text, model: payload.model)
        let jobID = JobID(partition: session.partition, milliseconds: UInt64(session.lastRequestMilliseconds))
        var job = Job(id: jobID, priority: .interactive, request: body, session: session.id, owner: session.owner)
        if speaks { job.speech = Job.Speech() }
        job.traceparent = session.socket?.traceparent
        var options = SubmitOptions()
        options.gateway = settings.name
        options.session = (session.epoch, SessionRecord.requestPrefix + payload.id)
        if payload.supersedes {
            options.supersede = session.running.filter { $0.phase == .running }.map(\.jobID)
            for old in session.running where old.phase == .submitting { old.waiting.append((InterruptReason.userNewInput, { _ in })) }
        }
        let machine = RelayMachine(
            requestID: payload.id, jobID: jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning, speaks: speaks)
        let request = RunningRequest(id: payload.id, jobID: jobID, text: payload.text, speaks: speaks, machine: machine)
        request.traceparent = job.traceparent
        session.add(request)
        let subject = Subject(host: self, session: session, request: request)
        follow(subject)
        submit(job, options, subject)
    }

    /// Subscribes to the job's events before it is submitted, so that none is missed.
    private func follow(_ subject: Subject) {
        let (id, receive) = (subject.request.jobID, receiver(subject))
        subject.request.following = context.feed.assumeIsolated { $0.follow(new: id, receive: receive) }
    }

    /// Submits the job and handles the outcome. The account holds the request's bytes until Redis answers.
    private func submit(_ job: Job, _ options: SubmitOptions, _ subject: Subject) {
        let (queue, backgroundTasks, bound) = (context.queue, context.backgroundTasks, NIOLoopBound(subject, eventLoop: eventLoop))
        let bytes = subject.session.cost(of: subject.request.text ?? "")
        subject.session.account.hold(bytes)
        subject.session.account.charge(bytes)
        context.await({ () -> Outcome in
            guard !bound.value.session.isOver else { return .refused(Self.lost) }
            // Save the request before its job, in the same flush: if this gateway dies, the gateway that adopts the session needs it to
            // resume or interrupt the job. The submission script checks that it was saved.
            bound.value.host.save(bound.value.request, of: bound.value.session)
            return await Self.attempt(job, options, queue, backgroundTasks)
        }) { outcome in
            subject.session.account.release(bytes)
            if case .accepted = outcome { subject.host.context.logSubmitted(job) }
            subject.host.submitted(subject, outcome)
        }
    }

    private static func attempt(_ job: Job, _ options: SubmitOptions, _ queue: JobProducer, _ backgroundTasks: BackgroundTasks) async
        -> Outcome
    {
        do {
            // A long timeout, because the client stays connected and can interrupt the request meanwhile.
            switch try await queue.submitSurely(job, options: options, patience: .seconds(30), backgroundTasks: backgroundTasks) {
            case .accepted, .repeated, .exists: return .accepted
            case .full, .conflict: return .refused(full)
            case .ownerFull: return .refused(ownerFull)
            case .sessionLost: return .refused(lost)
            case .sessionUnsaved: return .refused(busy)
            }
        } catch {
            return .refused(busy)
        }
    }

    /// Handles the reply to a submission.
    private func submitted(_ subject: Subject, _ outcome: Outcome) {
        let (session, request) = (subject.session, subject.request)
        if session.isOver { stopFollowing(request) }
        guard session.running.contains(where: { $0 === request }) else {
            // The request or the session ended before the reply arrived.
            stopFollowing(request)
            return interruptWaiting(request, in: session)
        }
        switch outcome {
        case .accepted:
            request.phase = .running
            interruptWaiting(request, in: session)
        case .refused(let error): refuse(subject, request.exceedsQuota ? Self.overQuota : error)
        }
    }

    /// Rejects a request whose job does not run. The client may use its request id again.
    func refuse(_ subject: Subject, _ error: ProtocolError) {
        let (session, request) = (subject.session, subject.request)
        guard session.remove(request) else { return }
        stopFollowing(request)
        var error = error
        error.requestID = request.id
        // A client that reconnected gets its ERROR in reply to RESUME, not a second one here.
        if !request.isMuted { session.socket?.send(error) }
        answerWaiting(request, nil)
        save(session, [], deleting: request)
        session.socket?.requestEnded()
        forgetIfIdle(session)
    }

    // MARK: relaying

    /// - Returns: a handler for the job's events, valid until the request's next RESUME (`generation`).
    func receiver(_ subject: Subject) -> @Sendable ([LoggedEvent]) -> Void {
        let bound = NIOLoopBound(subject, eventLoop: eventLoop)
        let generation = subject.request.generation
        return { events in bound.value.host.receive(events, bound.value, generation) }
    }

    /// Relays events to the client and ends the request on its terminal event.
    func receive(_ events: [LoggedEvent], _ subject: Subject, _ generation: Int) {
        let (session, request) = (subject.session, subject.request)
        guard !session.isOver, request.generation == generation, request.machine.ending == nil else { return }
        let socket = request.isMuted ? nil : session.socket
        request.machine.receive(events, milliseconds: WallClock.milliseconds, emit: socket.map { socket in { socket.send($0) } })
        guard let ending = request.machine.ending, session.remove(request) else { return }
        ended(subject, ending)
    }

    /// Records an ended request in the session and its history.
    private func ended(_ subject: Subject, _ ending: RelayMachine.Ending) {
        let (session, request) = (subject.session, subject.request)
        if ending == .interrupted, let asked = request.interruptedAt { GatewayMetrics.interruptCarriedOut(since: asked) }
        session.remember(EndedRequest(id: request.id, jobID: request.jobID, ending: ending))
        var fields: UnsavedChanges.Fields = .ended
        // A request that failed without output is not added to the history; the client is expected to repeat it.
        if let text = request.text, settings.historyTurns > 0, ending != .failed || !request.machine.answer.isEmpty {
            session.history.append(user: text, answer: request.machine.answer)
            fields.insert(.history)
        }
        // The feed has already stopped following the job.
        request.following = nil
        if request.phase == .running { answerWaiting(request, InterruptResult(state: JobState(rawValue: ending.rawValue), stored: false)) }
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

    // MARK: resuming

    /// Replays a request from the client's last event, then relays it live.
    /// - Throws: SESSION_INVALID when the session has no such request, RATE_LIMITED above `Session.maximumReplays`.
    func resume(_ payload: ResumePayload, in session: Session) throws(ProtocolError) {
        let ended = session.endedRequest(payload.id)
        guard ended != nil || session.request(payload.id) != nil else {
            throw ProtocolError(.sessionInvalid, "the session has no such request", requestID: payload.id)
        }
        guard session.replays < Session.maximumReplays else {
            throw ProtocolError(.rateLimited, "too many replays are running for this session", retryable: true, requestID: payload.id)
        }
        if let request = session.request(payload.id) {
            request.generation += 1
            request.isMuted = false
            request.machine = RelayMachine(
                requestID: request.id, jobID: request.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
                speaks: request.speaks, known: payload.after)
            // A request that is being submitted has nothing to replay; this only renews its subscription for the new generation.
            replay(request, in: session)
        } else if let ended {
            replay(ended, after: payload.after, in: session)
        }
    }
}
