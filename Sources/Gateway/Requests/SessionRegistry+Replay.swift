import Contract
import JobQueue
import Logging
import NIOCore
import Support

/// Replay of requests from the event logs of their jobs: page by page, at most as fast as the client reads.
extension SessionRegistry {
    /// Maximum bytes of a log that one replay holds.
    private static let pageSize = 32 << 10
    private static let replayRetry = RetryPolicy.seconds(600)
    /// For an ended request, whose client can only wait or repeat its RESUME.
    private static let endedRetry = RetryPolicy.seconds(30)

    private static let unknownRequest = ProtocolError(.internalError, "the request was lost", detail: "internal", retryable: true)

    private static let unreachable = ProtocolError(
        .serverBusy, "Redis is not reachable, or has lost the end of the request and does not have it again yet; resume it again later",
        detail: "overloaded", retryable: true)

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
            request.restart(
                RelayMachine(
                    requestID: request.id, jobID: request.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
                    speaks: request.speaks, closesSilence: request.machine.closesSilence,
                    filter: voiceFilter(session, speaks: request.speaks), known: payload.after))
            // A request that is being submitted has nothing to replay; this only renews its subscription for the new generation.
            replay(request, in: session)
        } else if let ended {
            replay(ended, after: payload.after, in: session)
        }
    }

    // MARK: running requests

    /// Replays a running request from its first event, so that the answer is complete, and then follows it live. Retries for 10 minutes while
    /// Redis is unreachable.
    func replay(_ request: RunningRequest, in session: Session) {
        let old = request.following
        request.following = nil
        let generation = request.generation
        let isSubmitted = request.state != .submitting
        let (receive, pace) = (receiver(of: request, in: session), pace(of: request, in: session))
        session.replays += 1
        context.backgroundTasks.startOnLoop { [self] in
            let start = isSubmitted ? await catchUp(request, in: session, generation) : .live(after: nil)
            var following: Following?
            if case .live(let after) = start {
                following = await Self.replayRetry.run { () async throws(QueueError) in
                    try await context.feed.follow(request.jobID, after: after, pace: pace, receive: receive)
                }
            }
            session.replays -= 1
            if let old { context.feed.stop(old) }
            guard request.wantsEvents(for: generation) else {
                if let following { context.feed.stop(following) }
                return
            }
            request.following = following
            if case .unknown = start { refuse(request, in: session, Self.unknownRequest) }
        }
    }

    /// What follows after the log of a running request was read.
    private enum ReplayStart {
        /// Follow the job from its last event in the log; nil when there was none.
        case live(after: EventID?)
        /// The previous gateway died before it submitted the job, or the job's record has expired.
        case unknown
        /// The request is over, a later RESUME replaced this replay, or Redis was unreachable for too long.
        case abandoned
    }

    /// Relays the events of a running request's log.
    private func catchUp(_ request: RunningRequest, in session: Session, _ generation: Int) async -> ReplayStart {
        let isKnown = await Self.replayRetry.run { () async throws(QueueError) in try await context.queue.record(request.jobID) != nil }
        guard let isKnown else { return .abandoned }
        guard isKnown else { return .unknown }
        var after: EventID?
        _ = await readLog(
            of: request.jobID, in: session, retry: Self.replayRetry, reader: { request.isMuted ? nil : session.socket },
            isWanted: { request.wantsEvents(for: generation) }, awaitsEnd: false,
            relay: { events in
                receive(events, of: request, in: session, generation)
                if let last = events.last { after = last.id }
                return true
            })
        return request.wantsEvents(for: generation) ? .live(after: after) : .abandoned
    }

    // MARK: ended requests

    /// Replays an ended request from its event log, unless the log has expired. Retries for 30 s while Redis is unreachable, or while it lacks
    /// the end: a fail-over may have lost it, and the job's worker then writes it again, or another worker continues the job.
    private func replay(_ ended: EndedRequest, after: EventID?, in session: Session) {
        guard let socket = session.socket else { return }
        let new = RelayMachine(
            requestID: ended.id, jobID: ended.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
            speaks: session.settings.requiresSpeech, closesSilence: !session.speechIsInherited,
            filter: voiceFilter(session, speaks: session.settings.requiresSpeech), known: after)
        session.replays += 1
        context.backgroundTasks.startOnLoop { [self] in
            var machine = new
            // The machine keeps the whole answer, so its bytes are held until the end.
            var held = 0
            var hasRoom = true
            let end = await readLog(
                of: ended.jobID, in: session, retry: Self.endedRetry, reader: { socket }, isWanted: { session.socket === socket },
                awaitsEnd: true,
                relay: { events in
                    machine.receive(events, milliseconds: WallClock.milliseconds) { socket.send($0) }
                    let more = machine.answer.utf8.count - held
                    hasRoom = more <= 0 || session.account.hasRoom(for: more)
                    guard hasRoom else { return false }
                    session.account.hold(more)
                    held += more
                    return machine.ending == nil
                })
            session.replays -= 1
            session.account.release(held)
            var error: ProtocolError
            switch end {
            case .stopped where !hasRoom:
                error = ProtocolError(.rateLimited, "too many bytes of your requests are in memory", retryable: true)
            case .stopped where machine.ending != nil:
                return context.logger.debug("ended request replayed", metadata: ["job": "\(ended.jobID)"])
            // The socket is closed or replaced.
            case .stopped: return
            case .complete: error = ProtocolError(.sessionInvalid, "the request's event log has expired")
            case .unreachable: error = Self.unreachable
            }
            error.requestID = ended.id
            socket.send(error)
        }
    }

    // MARK: reading the log

    /// How the reading of a log ended.
    private enum LogEnd {
        /// At the end of the log.
        case complete
        /// `isWanted` or `relay` returned false.
        case stopped
        /// Redis did not answer in time, or did not have the end that was awaited.
        case unreachable
    }

    /// Passes the events of a job's log to `relay`, page by page, at most as fast as the client reads and the session's account allows.
    /// - Parameters:
    ///   - reader: the client's socket, asked before each page; nil when nothing is sent to a client.
    ///   - isWanted: asked after each wait.
    ///   - awaitsEnd: whether to try again at the end of the log while the job has not ended.
    ///   - relay: returns whether to continue; false with the terminal event.
    private func readLog(
        of id: JobID, in session: Session, retry: RetryPolicy, reader: () -> ClientSocket?, isWanted: () -> Bool, awaitsEnd: Bool,
        relay: ([LoggedEvent]) -> Bool
    ) async -> LogEnd {
        var cursor: String?
        while true {
            if let reader = reader() { await withCheckedContinuation { continuation in reader.whenRead { continuation.resume() } } }
            let read = await retry.run { () async throws(QueueError) -> LogPage? in
                // A turn for each try: while one server of a cluster is away, the logs of the others are read.
                await waitForTurn(session.account)
                defer { session.account.endRead() }
                guard isWanted() else { return nil }
                return awaitsEnd
                    ? try await context.queue.endedLogPage(id, after: cursor, size: Self.pageSize)
                    : try await context.queue.logPage(id, after: cursor, size: Self.pageSize)
            }
            guard let read else { return .unreachable }
            guard let page = read else { return .stopped }
            guard isWanted(), relay(page.events) else { return .stopped }
            guard let end = page.end, awaitsEnd || !page.isLast else { return .complete }
            cursor = end
        }
    }

    /// Waits until the account allows another page. `endRead` must follow.
    private func waitForTurn(_ account: TrafficAccount) async {
        await withCheckedContinuation { continuation in account.beginRead { continuation.resume() } }
        while account.debt > 0 {
            // Cancelled because the gateway shuts down.
            do { try await Task.sleep(for: .milliseconds(account.debt)) } catch { break }
        }
        account.charge(Self.pageSize)
    }
}
