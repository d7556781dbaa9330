import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore

/// Writing sessions to Redis. Each session has at most one write of changes in flight; what changes meanwhile is written after it, in one
/// write with its latest values. A request's field alone is written at once, before its job.
extension SessionHost {
    /// How long a session that was never used is kept when its client is away: long enough for a network to come back.
    private static let unusedTime = Duration.seconds(60)

    /// Marks fields as changed and writes them, now or after the write that is in flight.
    func save(_ session: Session, _ fields: UnsavedChanges.Fields, deleting request: RunningRequest? = nil) {
        guard !session.isOver else { return }
        session.unsaved.fields.formUnion(fields)
        if let request { session.unsaved.deletions.insert(SessionRecord.requestPrefix + request.id) }
        writeUnsaved(session)
    }

    /// A request was used to keep the session: Redis learns of it now and then only.
    func touch(_ session: Session) {
        session.touch()
        guard session.lastRequestMilliseconds - session.savedMilliseconds >= settings.sessionTimeout.milliseconds / 16 else { return }
        save(session, .time)
    }

    /// Writes a new request's field at once: the submission that follows on the same connection looks for it.
    func save(_ request: RunningRequest, of session: Session) {
        let field = SessionRecord.requestPrefix + request.id
        // An earlier request of this id was refused.
        session.unsaved.deletions.remove(field)
        let change = SessionStore.Change(fields: [lastRequest(of: session), (field, request.stored.text)])
        write(session, change, creating: .no) { _, saved in
            if case .overQuota = saved { request.exceedsQuota = true }
        }
    }

    private func writeUnsaved(_ session: Session) {
        guard !session.isSaving, !session.unsaved.isEmpty, !session.isOver else { return }
        // Under pressure the changes wait for the next beat.
        guard session.account.hasRoom(for: session.cost(of: "")) else { return }
        let change = session.unsaved.fields.contains(.all) ? everything(of: session) : changes(of: session)
        session.unsaved = UnsavedChanges()
        session.isSaving = true
        write(session, change, creating: .no) { host, saved in
            session.isSaving = false
            if case .failed = saved { return }
            host.writeUnsaved(session)
            host.forgetIfIdle(session)
        }
    }

    /// - Parameter then: on the event loop.
    func write(
        _ session: Session, _ change: SessionStore.Change, creating: SessionStore.Creation,
        then: @escaping (SessionHost, SessionStore.Saved) -> Void
    ) {
        let bytes = change.size
        session.account.hold(bytes)
        session.account.charge(bytes)
        session.savedMilliseconds = WallClock.milliseconds
        let done = NIOLoopBound((self, session, then), eventLoop: eventLoop)
        store.save(
            session.id, owner: session.owner, epoch: session.epoch, expires: keptUntil(session, isNew: creating == .withinQuota),
            isBusy: !session.running.isEmpty,
            creating: creating, change: change
        ) { saved in
            let (host, session, then) = done.value
            session.account.release(bytes)
            switch saved {
            case .saved: break
            case .savedInPart: host.reportQuota(session)
            case .lost: host.lose(session)
            case .missing where creating == .no: host.recreate(session)
            case .missing, .overQuota: break
            case .failed:
                session.unsaved.fields.insert(.all)
                session.unsaved.deletions.formUnion(change.deleted)
            }
            then(host, saved)
        }
    }

    /// Redis lost the session (it was emptied, or came back without its data) while its client is still here: written anew, whole.
    private func recreate(_ session: Session) {
        guard !session.isOver else { return }
        write(session, everything(of: session), creating: .always) { _, _ in }
    }

    /// The client is told once: its session goes on here, but another gateway would have to go on without what was not stored.
    private func reportQuota(_ session: Session) {
        guard !session.exceedsQuota else { return }
        session.exceedsQuota = true
        context.logger.info("session quota exceeded", metadata: ["session": "\(session.id)", "tenant": "\(session.owner)"])
        session.socket?.send(
            ProtocolError(.rateLimited, "your sessions fill their quota: settings and history of this one are not stored", retryable: true))
    }

    /// At every beat: changes that could not be written, or had to wait, are written.
    func saveUnsaved() {
        for session in sessions.values where !session.unsaved.isEmpty {
            writeUnsaved(session)
            forgetIfIdle(session)
        }
        accounts.forgetUnused()
    }

    private func changes(of session: Session) -> SessionStore.Change {
        var change = SessionStore.Change(deleted: Array(session.unsaved.deletions), fields: [lastRequest(of: session)])
        let fields = session.unsaved.fields
        if fields.contains(.settings) { change.fields.append(("settings", session.settingsText)) }
        if fields.contains(.history) { change.fields.append(("history", session.history.json.text)) }
        if fields.contains(.ended) { change.fields.append(("ended", Self.ended(session))) }
        return change
    }

    func everything(of session: Session) -> SessionStore.Change {
        let current = Set(session.running.map { SessionRecord.requestPrefix + $0.id })
        var change = SessionStore.Change(deleted: session.unsaved.deletions.filter { !current.contains($0) })
        change.fields = [
            ("owner", session.owner), ("created_ms", String(session.createdMilliseconds)), lastRequest(of: session),
            ("settings", session.settingsText), ("history", session.history.json.text), ("ended", Self.ended(session)),
        ]
        change.fields += session.running.map { (SessionRecord.requestPrefix + $0.id, $0.stored.text) }
        return change
    }

    private func lastRequest(of session: Session) -> (name: String, value: String) {
        ("last_request_ms", String(session.lastRequestMilliseconds))
    }

    private static func ended(_ session: Session) -> String { JSON.array(session.ended.map(\.json)).text }

    /// The hash outlives the session's last moment by what a takeover needs.
    /// - Parameter isNew: its client waits for it, though its socket is not attached yet.
    private func keptUntil(_ session: Session, isNew: Bool) -> Int {
        let now = WallClock.milliseconds
        var end = session.expiry(settings.sessionTimeout)
        if session.isUnused, session.socket == nil, !isNew { end = min(end, now + Self.unusedTime.milliseconds) }
        return max(end, now) + settings.grace.milliseconds + 3 * settings.lease.milliseconds
    }
}
