import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// From REQUEST to the job's end: submitting, relaying, resuming.
extension SessionHost {
    struct Subject {
        let host: SessionHost
        let session: Session
        let request: RunningRequest
    }

    private enum Outcome: Sendable {
        case accepted
        case refused(ProtocolError)
    }

    static let busy = ProtocolError(.serverBusy, "Redis is out of reach; try again", detail: "overloaded", retryable: true)

    private static let full = ProtocolError(.serverBusy, "the queue is full; try again later", detail: "overloaded", retryable: true)

    /// Its client is elsewhere and hears nothing of this.
    private static let lost = ProtocolError(.serverBusy, "the session went on elsewhere", detail: "overloaded", retryable: true)

    private static let ownerFull = ProtocolError(
        .serverBusy, "too many of your requests are waiting; try again when some have run", detail: "overloaded", retryable: true)

    private static let overQuota = ProtocolError(
        .rateLimited, "your sessions fill their quota; end some or try again later", retryable: true)

    // MARK: submitting

    func start(_ payload: RequestPayload, in session: Session) {
        session.touch()
        let speaks = payload.requiresSpeech ?? session.settings.requiresSpeech
        let body = ChatRequest.body(settings: session.settings, history: session.history, text: payload.text, model: payload.model)
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

    private func follow(_ subject: Subject) {
        let (id, receive) = (subject.request.jobID, receiver(subject))
        subject.request.following = context.feed.assumeIsolated { $0.follow(new: id, receive: receive) }
    }

    private func submit(_ job: Job, _ options: SubmitOptions, _ subject: Subject) {
        let (queue, errands, bound) = (context.queue, context.errands, NIOLoopBound(subject, eventLoop: eventLoop))
        let bytes = subject.session.cost(of: subject.request.text ?? "")
        subject.session.account.hold(bytes)
        subject.session.account.charge(bytes)
        context.await({ () -> Outcome in
            guard !bound.value.session.isOver else { return .refused(Self.lost) }
            // Written before the job, in one write with it: should this gateway die now, whoever takes the session knows of the request. A
            // job that its session does not know could be neither resumed nor interrupted after this gateway: the submission looks for it.
            bound.value.host.save(bound.value.request, of: bound.value.session)
            return await Self.attempt(job, options, queue, errands)
        }) { outcome in
            subject.session.account.release(bytes)
            if case .accepted = outcome { subject.host.context.tellSubmitted(job) }
            subject.host.submitted(subject, outcome)
        }
    }

    private static func attempt(_ job: Job, _ options: SubmitOptions, _ queue: JobQueue, _ errands: Errands) async -> Outcome {
        do {
            // The client waits on its socket, and may interrupt meanwhile.
            switch try await queue.submitSurely(job, options: options, patience: .seconds(30), errands: errands) {
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

    private func submitted(_ subject: Subject, _ outcome: Outcome) {
        let (session, request) = (subject.session, subject.request)
        if session.isOver { stopFollowing(request) }
        guard session.running.contains(where: { $0 === request }) else {
            // It ended, or the session did, before the answer came.
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

    /// Nothing runs: the client may use the request's id again.
    func refuse(_ subject: Subject, _ error: ProtocolError) {
        let (session, request) = (subject.session, subject.request)
        guard session.remove(request) else { return }
        stopFollowing(request)
        var error = error
        error.requestID = request.id
        // A client that has come back hears of a request when it asks (RESUME): then that there is none. One ERROR, not two.
        if !request.isMuted { session.socket?.send(error) }
        answerWaiting(request, nil)
        save(session, [], deleting: request)
        session.socket?.requestEnded()
        forgetIfIdle(session)
    }

    // MARK: relaying

    func receiver(_ subject: Subject) -> @Sendable ([LoggedEvent]) -> Void {
        let bound = NIOLoopBound(subject, eventLoop: eventLoop)
        let generation = subject.request.generation
        return { events in bound.value.host.receive(events, bound.value, generation) }
    }

    func receive(_ events: [LoggedEvent], _ subject: Subject, _ generation: Int) {
        let (session, request) = (subject.session, subject.request)
        guard !session.isOver, request.generation == generation, request.machine.ending == nil else { return }
        let socket = request.isMuted ? nil : session.socket
        request.machine.receive(events, milliseconds: WallClock.milliseconds, emit: socket.map { socket in { socket.send($0) } })
        guard let ending = request.machine.ending, session.remove(request) else { return }
        ended(subject, ending)
    }

    private func ended(_ subject: Subject, _ ending: RelayMachine.Ending) {
        let (session, request) = (subject.session, subject.request)
        if ending == .interrupted, let asked = request.interruptedAt { GatewayMetrics.interruptCarriedOut(since: asked) }
        session.remember(EndedRequest(id: request.id, jobID: request.jobID, ending: ending))
        var fields: UnsavedChanges.Fields = .ended
        // A failure that gave nothing is no turn: the client will say it again.
        if let text = request.text, settings.historyTurns > 0, ending != .failed || !request.machine.answer.isEmpty {
            session.history.append(user: text, answer: request.machine.answer)
            fields.insert(.history)
        }
        // The feed ended the following by itself.
        request.following = nil
        if request.phase == .running { answerWaiting(request, InterruptResult(state: JobState(rawValue: ending.rawValue), stored: false)) }
        save(session, fields, deleting: request)
        session.socket?.requestEnded()
        forgetIfIdle(session)
    }

    func stopFollowing(_ request: RunningRequest) {
        guard let following = request.following else { return }
        request.following = nil
        context.feed.stop(following)
    }

    // MARK: resuming

    /// Replays a request from what the client has, then goes on live.
    /// - Throws: SESSION_INVALID when the session knows no such request, RATE_LIMITED when it replays as many as it may.
    func resume(_ payload: ResumePayload, in session: Session) throws(ProtocolError) {
        let ended = session.endedRequest(payload.id)
        guard ended != nil || session.request(payload.id) != nil else {
            throw ProtocolError(.sessionInvalid, "the session has no such request", requestID: payload.id)
        }
        guard session.replays < Session.maximumReplays else {
            throw ProtocolError(.rateLimited, "too many requests are being replayed", retryable: true, requestID: payload.id)
        }
        if let request = session.request(payload.id) {
            request.generation += 1
            request.isMuted = false
            request.machine = RelayMachine(
                requestID: request.id, jobID: request.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
                speaks: request.speaks, known: payload.after)
            // One that is being submitted has nothing to replay: its following only has to be the new generation's.
            replay(request, in: session)
        } else if let ended {
            replay(ended, after: payload.after, in: session)
        }
    }
}
