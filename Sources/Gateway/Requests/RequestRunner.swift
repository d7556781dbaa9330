import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// From REQUEST to the job's end: submitting, relaying, resuming.
extension SessionHost {
    private struct Subject {
        let host: SessionHost
        let session: Session
        let request: RunningRequest
    }

    private enum Outcome: Sendable {
        case accepted
        case refused(ProtocolError)
    }

    private static let busy = ProtocolError(.serverBusy, "Redis is out of reach; try again", detail: "overloaded", retryable: true)

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
    private func refuse(_ subject: Subject, _ error: ProtocolError) {
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

    private func receiver(_ subject: Subject) -> @Sendable ([LoggedEvent]) -> Void {
        let bound = NIOLoopBound(subject, eventLoop: eventLoop)
        let generation = subject.request.generation
        return { events in bound.value.host.receive(events, bound.value, generation) }
    }

    private func receive(_ events: [LoggedEvent], _ subject: Subject, _ generation: Int) {
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

    /// Follows a job from its beginning, so that the whole answer is known; tries until Redis answers.
    func replay(_ request: RunningRequest, in session: Session) {
        let old = request.following
        request.following = nil
        let subject = Subject(host: self, session: session, request: request)
        let receive = receiver(subject)
        let generation = request.generation
        let (feed, queue, id) = (context.feed, context.queue, request.jobID)
        let isSubmitting = request.phase == .submitting
        session.replays += 1
        context.await({ () -> (following: Following, isThere: Bool)? in
            await Patience.seconds(600).until { () async throws(RedisError) in
                let isThere = isSubmitting ? true : try await queue.record(id) != nil
                return (try await feed.follow(id, after: nil, receive: receive), isThere)
            }
        }) { answer in
            session.replays -= 1
            if let old { subject.host.context.feed.stop(old) }
            guard let answer else { return }
            guard request.generation == generation, !session.isOver, session.running.contains(where: { $0 === request }) else {
                return subject.host.context.feed.stop(answer.following)
            }
            request.following = answer.following
            // Its gateway died before the job was submitted, or the job ended so long ago that its record is gone.
            if !answer.isThere {
                subject.host.refuse(subject, ProtocolError(.internalError, "the request was lost", detail: "internal", retryable: true))
            }
        }
    }

    /// An ended request is replayed from its log, as long as that is kept.
    private func replay(_ ended: EndedRequest, after: EventID?, in session: Session) {
        let queue = context.queue
        let host = self
        session.replays += 1
        context.await({ () -> Result<[LoggedEvent], RedisError> in
            do throws(RedisError) { return .success(try await queue.log(ended.jobID, after: nil)) } catch { return .failure(error) }
        }) { result in
            session.replays -= 1
            guard let socket = session.socket else { return }
            switch result {
            case .failure:
                var error = Self.busy
                error.requestID = ended.id
                socket.send(error)
            case .success(let events):
                guard events.last?.event.isTerminal == true else {
                    return socket.send(ProtocolError(.sessionInvalid, "the request is not kept any more", requestID: ended.id))
                }
                var machine = RelayMachine(
                    requestID: ended.id, jobID: ended.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
                    speaks: session.settings.requiresSpeech, known: after)
                machine.receive(events, milliseconds: WallClock.milliseconds) { socket.send($0) }
                host.context.logger.debug("ended request replayed", metadata: ["job": "\(ended.jobID)"])
            }
        }
    }
}
