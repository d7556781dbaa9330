import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// The sessions that this gateway holds, and their life: opened, resumed, left by their client, adopted from a dead gateway, ended. Lives
/// on the event loop.
final class SessionHost {
    let context: GatewayContext
    let store: SessionStore
    let accounts: TrafficAccounts
    private(set) var sessions: [String: Session] = [:]

    var settings: GatewaySettings { context.settings }
    var eventLoop: any EventLoop { context.eventLoop }

    init(context: GatewayContext) {
        self.context = context
        store = SessionStore(
            redis: context.queue.redis, keys: context.queue.keys, gateway: context.settings.name, quota: SessionQuota(context.settings))
        accounts = TrafficAccounts(settings: context.settings)
    }

    var runningCount: Int { sessions.values.reduce(0) { $0 + $1.running.count } }

    // MARK: coming

    /// A new session, in a random partition. `then` gets it when Redis holds it.
    func open(owner: String, settings: SessionSettings, then: @escaping (Result<Session, ProtocolError>) -> Void) {
        let now = WallClock.milliseconds
        let partition = Int.random(in: 0..<context.queue.keys.partitions)
        let session = Session(
            id: JobID(partition: partition, milliseconds: UInt64(now)).rawValue, partition: partition, owner: owner, settings: settings,
            history: emptyHistory, tenants: context.tenants, account: accounts.tenant(owner), milliseconds: now)
        write(session, everything(of: session), creating: .withinQuota) { host, saved in
            switch saved {
            case .saved:
                host.sessions[session.id] = session
                then(.success(session))
            case .overQuota:
                then(.failure(ProtocolError(.rateLimited, "your sessions fill their quota; end some or try again later", retryable: true)))
            case .lost, .missing, .savedInPart, .failed:
                host.context.logger.warning("session could not be written", metadata: ["session": "\(session.id)", "outcome": "\(saved)"])
                then(.failure(ProtocolError(.serverBusy, "the session could not be stored; try again", retryable: true)))
            }
        }
    }

    /// A session of before, wherever it was held. `then` gets SESSION_INVALID for one that is not there or not this owner's: both look the
    /// same.
    func resume(_ id: String, owner: String, then: @escaping (Result<Session, ProtocolError>) -> Void) {
        claim(id, owner: owner, holder: nil) { host, result in
            switch result {
            case .failure:
                then(.failure(ProtocolError(.serverBusy, "the session could not be read; try again", retryable: true)))
            case .success(nil):
                then(.failure(ProtocolError(.sessionInvalid, "there is no such session")))
            case .success(let session?):
                session.touch()
                then(.success(session))
                host.save(session, .time)
            }
        }
    }

    /// Takes a dead gateway's session (or one that this gateway left behind when it died); its client has the grace to come back.
    func adopt(_ id: String, from holder: String) {
        guard sessions[id] == nil else { return }
        claim(id, owner: nil, holder: holder) { host, result in
            guard case .success(let session?) = result, session.socket == nil else { return }
            host.context.logger.info("session adopted", metadata: ["session": "\(id)", "from": "\(holder)"])
            host.left(session)
        }
    }

    private func claim(
        _ id: String, owner: String?, holder: String?, then: @escaping (SessionHost, Result<Session?, RedisError>) -> Void
    ) {
        // Judged before Redis is asked: what is no id must not become a key, nor a partition that is not there one to look in.
        let partition = context.queue.keys.partition(of: id)
        guard JobID(id) != nil, (0..<context.queue.keys.partitions).contains(partition) else { return then(self, .success(nil)) }
        let done = NIOLoopBound((self, then), eventLoop: eventLoop)
        store.claim(id, owner: owner, holder: holder) { result in
            let (host, then) = done.value
            switch result {
            case .failure(let error): then(host, .failure(error))
            case .success(nil): then(host, .success(nil))
            case .success(let record?):
                let expiry = record.lastRequestMilliseconds + host.settings.sessionTimeout.milliseconds
                // Its time is over, though Redis keeps it a little longer; a dead gateway's requests are looked after all the same.
                if owner != nil, record.running.isEmpty, expiry < WallClock.milliseconds { return then(host, .success(nil)) }
                if let local = host.sessions[id], local.epoch == record.previousEpoch {
                    local.epoch = record.epoch
                    return then(host, .success(local))
                }
                if let stale = host.sessions[id] { host.lose(stale) }
                then(host, .success(host.rebuild(id, partition, record)))
            }
        }
    }

    private func rebuild(_ id: String, _ partition: Int, _ record: SessionRecord) -> Session {
        let history = ChatHistory(stored: record.history, maximumTurns: settings.historyTurns, maximumSize: settings.historyMaximum)
        let session = Session(
            id: id, partition: partition, record: record, history: history, tenants: context.tenants, account: accounts.tenant(record.owner)
        )
        sessions[id] = session
        // No gateway lets a session run more.
        for running in record.running.sorted(by: { $0.jobID < $1.jobID }).prefix(2 * settings.requestsPerSocket) {
            let machine = RelayMachine(
                requestID: running.id, jobID: running.jobID, sessionID: id, wantsReasoning: session.settings.wantsReasoning,
                speaks: running.speaks)
            let request = RunningRequest(id: running.id, jobID: running.jobID, text: running.text, speaks: running.speaks, machine: machine)
            request.phase = .running
            request.isMuted = true
            session.add(request)
            replay(request, in: session)
        }
        return session
    }

    private var emptyHistory: ChatHistory { ChatHistory(maximumTurns: settings.historyTurns, maximumSize: settings.historyMaximum) }

    // MARK: going

    /// A client is there; whoever held the session's socket before is sent away.
    func attach(_ socket: AgentSocket, to session: Session) {
        let old = session.socket
        // First the new one: the old one's end must not count as the client's leaving.
        session.socket = socket
        session.graceTimer?.cancel()
        session.graceTimer = nil
        // What runs is sent again from where the client says (RESUME), not from wherever it stands.
        for request in session.running { request.isMuted = true }
        if let old, old !== socket { old.close(.goingAway, "the session went on elsewhere") }
    }

    /// The session's socket is gone: its requests run on for the grace.
    func detach(_ socket: AgentSocket, from session: Session) {
        guard session.socket === socket || session.socket == nil, !session.isOver else { return }
        session.socket = nil
        left(session)
    }

    /// Who asked for the session went before it was there.
    func nobodyCame(for session: Session) {
        if session.socket == nil, !session.isOver { left(session) }
    }

    private func left(_ session: Session) {
        for request in session.running { request.isMuted = true }
        // An unused session holds nothing that a client could miss: its expiry is brought forward.
        if session.isUnused { save(session, .time) }
        guard !forgetIfIdle(session), session.graceTimer == nil else { return }
        session.graceTimer = eventLoop.after(settings.grace) { [weak self] in self?.abandon(session) }
    }

    /// The grace is over and nobody came: what still runs is interrupted, provided that no other gateway has taken the session meanwhile.
    private func abandon(_ session: Session) {
        session.graceTimer = nil
        guard !session.isOver, session.socket == nil else { return }
        write(session, SessionStore.Change(), creating: .no) { host, saved in
            guard !session.isOver, session.socket == nil else { return }
            if case .failed = saved {
                session.graceTimer = host.eventLoop.after(.seconds(1)) { [weak host] in host?.abandon(session) }
                return
            }
            host.context.logger.info(
                "client did not come back", metadata: ["session": "\(session.id)", "requests": "\(session.running.count)"])
            for request in session.running { host.interruptSurely(request, in: session, reason: InterruptReason.clientGone) }
        }
    }

    /// The client said that it is done: its requests are interrupted and the session is gone.
    func end(_ session: Session) {
        for request in session.running { interruptSurely(request, in: session, reason: InterruptReason.clientGone) }
        drop(session)
        let (logger, id) = (context.logger, session.id)
        store.end(session.id, owner: session.owner, epoch: session.epoch) { error in
            guard let error else { return }
            logger.warning("session could not be removed; it will expire", metadata: ["session": "\(id)", "error": "\(error)"])
        }
    }

    /// Another gateway holds the session now.
    func lose(_ session: Session) {
        guard !session.isOver else { return }
        context.logger.info("session went to another gateway", metadata: ["session": "\(session.id)"])
        let socket = session.socket
        drop(session)
        socket?.close(.goingAway, "the session went on elsewhere")
    }

    private func drop(_ session: Session) {
        session.end()
        session.graceTimer?.cancel()
        session.graceTimer = nil
        session.socket = nil
        // Interrupts that wait for a submission stay: they are sent when it is answered, whoever holds the session then.
        for request in session.running { stopFollowing(request) }
        if sessions[session.id] === session { sessions[session.id] = nil }
    }

    /// A session without client and requests lives in Redis alone.
    @discardableResult
    func forgetIfIdle(_ session: Session) -> Bool {
        guard session.socket == nil, session.running.isEmpty, !session.isSaving, session.unsaved.isEmpty else { return false }
        drop(session)
        return true
    }
}
