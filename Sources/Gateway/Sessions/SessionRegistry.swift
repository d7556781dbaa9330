import Contract
import JobQueue
import Logging
import NIOCore
import Support

/// The sessions held by this gateway. Opens, resumes, adopts and ends them, and reacts to disconnected clients. Confined to the event loop.
final class SessionRegistry {
    let context: GatewayContext
    let store: SessionStore
    let accounts: TrafficAccounts
    let voiceFilters = VoiceFilters()
    /// By session id.
    private(set) var sessions: [String: Session] = [:]

    var settings: GatewaySettings { context.settings }
    var eventLoop: any EventLoop { context.eventLoop }

    init(context: GatewayContext) {
        self.context = context
        let settings = context.settings
        let quota = SessionQuota(
            sessions: settings.sessionsPerTenant, bytes: settings.sessionBytesPerTenant, timeout: settings.sessionTimeout)
        store = SessionStore(queue: context.queue, gateway: settings.name, quota: quota)
        accounts = TrafficAccounts(settings: settings)
    }

    /// Running requests of all sessions.
    var runningCount: Int { sessions.values.reduce(0) { $0 + $1.running.count } }

    // MARK: opening and resuming

    /// Opens a new session in a random partition.
    /// - Parameter then: called on the event loop once Redis has stored the session, or with RATE_LIMITED or SERVER_BUSY.
    func open(owner: String, settings: SessionSettings, then: @escaping (Result<Session, ProtocolError>) -> Void) {
        let now = WallClock.milliseconds
        let partition = context.queue.newPartition()
        let session = Session(
            id: JobID(partition: partition, milliseconds: UInt64(now)).rawValue, partition: partition, owner: owner, settings: settings,
            history: emptyHistory, tenants: context.tenants, account: accounts.tenant(owner), milliseconds: now)
        write(session, everything(of: session), creating: .withinQuota) { [self] saved in
            switch saved {
            case .saved:
                sessions[session.id] = session
                then(.success(session))
            case .overQuota:
                then(.failure(ProtocolError(.rateLimited, "session quota exceeded; end some sessions or try again later", retryable: true)))
            case .lost, .missing, .savedInPart, .failed:
                context.logger.warning("failed to store a new session", metadata: ["session": "\(session.id)", "outcome": "\(saved)"])
                then(.failure(ProtocolError(.serverBusy, "the session could not be stored; try again", retryable: true)))
            }
        }
    }

    /// Resumes an existing session, and takes it over when another gateway holds it.
    /// - Parameter then: called on the event loop; with SESSION_INVALID when the session does not exist or belongs to another owner, which
    ///   a client cannot distinguish, or with SERVER_BUSY when Redis fails.
    func resume(_ id: String, owner: String, then: @escaping (Result<Session, ProtocolError>) -> Void) {
        claim(id, owner: owner, holder: nil) { [self] result in
            switch result {
            case .failure:
                then(.failure(ProtocolError(.serverBusy, "the session could not be read; try again", retryable: true)))
            case .success(nil):
                then(.failure(ProtocolError(.sessionInvalid, "the session does not exist")))
            case .success(let session?):
                session.touch()
                then(.success(session))
                save(session, .time)
            }
        }
    }

    /// Takes over a session of a dead gateway, or of an earlier process of this gateway. Its client has the grace period to reconnect.
    func adopt(_ id: String, from holder: String) {
        guard sessions[id] == nil else { return }
        claim(id, owner: nil, holder: holder) { [self] result in
            guard case .success(let session?) = result, session.socket == nil else { return }
            context.logger.info("session adopted", metadata: ["session": "\(id)", "from": "\(holder)"])
            disconnected(session)
        }
    }

    /// Makes this gateway the holder of a session. `then` gets nil when the session does not exist or does not match.
    private func claim(_ id: String, owner: String?, holder: String?, then: @escaping (Result<Session?, QueueError>) -> Void) {
        // Redis keys are built from the id.
        guard let partition = store.partition(of: id) else { return then(.success(nil)) }
        store.claim(id, owner: owner, holder: holder) { [self] result in
            switch result {
            case .failure(let error): then(.failure(error))
            case .success(nil): then(.success(nil))
            case .success(let record?):
                let expiry = record.lastRequestMilliseconds + settings.sessionTimeout.wholeMilliseconds
                // Redis keeps a session longer than its timeout. Adoption (no owner given) ignores the expiry, to recover its requests.
                if owner != nil, record.running.isEmpty, expiry < WallClock.milliseconds { return then(.success(nil)) }
                // An equal epoch alone is not enough: after a fail-over that lost this gateway's takeover, another gateway's has the same epoch.
                if let local = sessions[id], record.previousEpoch == record.epoch, local.epoch == record.epoch {
                    return then(.success(local))
                }
                if let stale = sessions[id] { lose(stale) }
                then(.success(rebuild(id, partition, record)))
            }
        }
    }

    /// Creates the session of a claimed record, and replays its running requests, muted until the client resumes them.
    private func rebuild(_ id: String, _ partition: Int, _ record: SessionRecord) -> Session {
        let history = ChatHistory(stored: record.history, maximumTurns: settings.historyTurns, maximumSize: settings.historyMaximum)
        let session = Session(
            id: id, partition: partition, record: record, history: history, tenants: context.tenants, account: accounts.tenant(record.owner)
        )
        sessions[id] = session
        // A gateway admits at most twice the limit (superseding requests); the bound protects against a corrupt record.
        for running in record.running.sorted(by: { $0.jobID < $1.jobID }).prefix(2 * settings.requestsPerSocket) {
            let machine = RelayMachine(
                requestID: running.id, jobID: running.jobID, sessionID: id, wantsReasoning: session.settings.wantsReasoning,
                speaks: running.speaks, filter: voiceFilter(session, speaks: running.speaks))
            let request = RunningRequest(
                id: running.id, jobID: running.jobID, text: running.text, speaks: running.speaks, machine: machine, state: .running)
            request.isMuted = true
            session.add(request)
            replay(request, in: session)
        }
        return session
    }

    private var emptyHistory: ChatHistory { ChatHistory(maximumTurns: settings.historyTurns, maximumSize: settings.historyMaximum) }

    // MARK: clients and endings

    /// Connects a socket to the session. A previous socket is closed with 1001.
    func attach(_ socket: ClientSocket, to session: Session) {
        let old = session.socket
        // Set the new socket before closing the old one, whose `detach` would otherwise start the grace period.
        session.socket = socket
        session.graceTimer?.cancel()
        session.graceTimer = nil
        // Running requests stay muted until the client states with RESUME which events it has.
        for request in session.running { request.isMuted = true }
        if let old, old !== socket { old.close(.goingAway, "the session was resumed on another connection") }
    }

    /// Disconnects a closing socket from the session. Running requests continue for the grace period.
    func detach(_ socket: ClientSocket, from session: Session) {
        guard session.socket === socket || session.socket == nil, !session.isOver else { return }
        session.socket = nil
        disconnected(session)
    }

    /// Releases a session whose socket closed before the session was open.
    func releaseUnclaimed(_ session: Session) {
        if session.socket == nil, !session.isOver { disconnected(session) }
    }

    /// Mutes the requests of a session without a client; forgets an idle session or starts its grace period.
    private func disconnected(_ session: Session) {
        for request in session.running { request.isMuted = true }
        // An unused session has no state worth keeping, so its expiry is brought forward.
        if session.isUnused { save(session, .time) }
        guard !forgetIfIdle(session), session.graceTimer == nil else { return }
        session.graceTimer = eventLoop.after(settings.grace) { [weak self] in self?.abandon(session) }
    }

    /// Interrupts the running requests after the grace period, unless another gateway has taken the session over. The empty write checks
    /// that; it is repeated every second while Redis fails.
    private func abandon(_ session: Session) {
        session.graceTimer = nil
        guard !session.isOver, session.socket == nil else { return }
        write(session, SessionChange(), creating: .no) { [self] saved in
            guard !session.isOver, session.socket == nil else { return }
            if case .failed = saved {
                session.graceTimer = eventLoop.after(.seconds(1)) { [weak self] in self?.abandon(session) }
                return
            }
            context.logger.info(
                "client did not reconnect in time", metadata: ["session": "\(session.id)", "requests": "\(session.running.count)"])
            for request in session.running { interrupt(request, in: session, reason: InterruptReason.clientGone) }
        }
    }

    /// Ends a session that its client closed or that expired: interrupts its requests and deletes it from Redis.
    func end(_ session: Session) {
        guard !session.isOver else { return }
        for request in session.running { interrupt(request, in: session, reason: InterruptReason.clientGone) }
        drop(session)
        let (logger, id) = (context.logger, session.id)
        store.end(session.id, owner: session.owner, epoch: session.epoch) { error in
            guard let error else { return }
            logger.warning("failed to delete a session; it expires by itself", metadata: ["session": "\(id)", "error": "\(error)"])
        }
    }

    /// Drops a session that another gateway has taken over, and closes its socket with 1001.
    func lose(_ session: Session) {
        guard !session.isOver else { return }
        context.logger.info("session taken over by another gateway", metadata: ["session": "\(session.id)"])
        let socket = session.socket
        drop(session)
        socket?.close(.goingAway, "the session was taken over by another gateway")
    }

    /// Removes the session from this gateway without changing Redis.
    private func drop(_ session: Session) {
        session.end()
        session.graceTimer?.cancel()
        session.graceTimer = nil
        session.socket = nil
        // Interrupts waiting for a submission are kept: they are sent when it is answered, also after a takeover.
        for request in session.running { stopFollowing(request) }
        if sessions[session.id] === session { sessions[session.id] = nil }
    }

    /// Drops a session that has no client, no running requests and no unsaved changes; it remains in Redis.
    /// - Returns: whether it was dropped.
    @discardableResult
    func forgetIfIdle(_ session: Session) -> Bool {
        guard session.socket == nil, session.running.isEmpty, !session.isSaving, session.unsaved.isEmpty else { return false }
        drop(session)
        return true
    }
}
