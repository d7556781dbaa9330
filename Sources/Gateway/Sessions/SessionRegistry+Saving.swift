import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore
import Support

/// Writing of sessions to Redis. Each session has at most one write of changes in flight; changes made meanwhile are combined into the next
/// write. Only the field of a new request is written immediately, before its job is submitted.
extension SessionRegistry {
    /// How long a session without any REQUEST is kept after its client disconnected; enough for a short network outage.
    private static let unusedTime = Duration.seconds(60)

    /// Marks fields as changed and writes them, immediately or after the write in flight.
    /// - Parameter request: a request whose field is to be deleted.
    func save(_ session: Session, _ fields: UnsavedChanges.Fields, deleting request: RunningRequest? = nil) {
        guard !session.isOver else { return }
        session.unsaved.fields.formUnion(fields)
        if let request { session.unsaved.deletions.insert(SessionRecord.requestPrefix + request.id) }
        writeUnsaved(session)
    }

    /// Restarts the session timeout. Writes the new expiry only when 1/16 of the timeout has passed since the last write.
    func touch(_ session: Session) {
        session.touch()
        guard session.lastRequestMilliseconds - session.savedMilliseconds >= settings.sessionTimeout.wholeMilliseconds / 16 else { return }
        save(session, .time)
    }

    /// Writes the field of a new request immediately. The submission that follows on the same connection checks for it.
    func save(_ request: RunningRequest, of session: Session) {
        let field = SessionRecord.requestPrefix + request.id
        // A rejected request may have had the same id; its pending deletion must not remove the new field.
        session.unsaved.deletions.remove(field)
        let change = SessionStore.Change(fields: [lastRequest(of: session), (field, request.stored.text)])
        write(session, change, creating: .no) { _, saved in
            if case .overQuota = saved { request.exceedsQuota = true }
        }
    }

    /// Starts a write of all changes, unless one is in flight.
    private func writeUnsaved(_ session: Session) {
        guard !session.isSaving, !session.unsaved.isEmpty, !session.isOver else { return }
        // When the account is over its memory limit, `saveUnsaved` retries at the next heartbeat.
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

    /// Writes a change and handles its result: a session that was taken over is dropped, one missing in Redis is written again, and a
    /// failed write is retried as a whole at the next heartbeat.
    /// - Parameter then: called on the event loop, after that.
    func write(
        _ session: Session, _ change: SessionStore.Change, creating: SessionStore.Creation,
        then: @escaping (SessionRegistry, SessionStore.Saved) -> Void
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

    /// Writes all fields of a session that Redis lost, for example in a restart without its data.
    private func recreate(_ session: Session) {
        guard !session.isOver else { return }
        write(session, everything(of: session), creating: .always) { _, _ in }
    }

    /// Reports to the client, once per session, that settings and history were not stored. The session continues on this gateway, but
    /// another gateway could not restore them.
    private func reportQuota(_ session: Session) {
        guard !session.exceedsQuota else { return }
        session.exceedsQuota = true
        context.logger.info("session quota exceeded", metadata: ["session": "\(session.id)", "tenant": "\(session.owner)"])
        session.socket?.send(
            ProtocolError(.rateLimited, "session quota exceeded: settings and history of this session are not stored", retryable: true))
    }

    /// Writes the changes whose write failed or was postponed. Called at every gateway heartbeat.
    func saveUnsaved() {
        for session in sessions.values where !session.unsaved.isEmpty {
            writeUnsaved(session)
            forgetIfIdle(session)
        }
        accounts.forgetUnused()
    }

    /// The changed fields.
    private func changes(of session: Session) -> SessionStore.Change {
        var change = SessionStore.Change(deleted: Array(session.unsaved.deletions), fields: [lastRequest(of: session)])
        let fields = session.unsaved.fields
        if fields.contains(.settings) { change.fields.append(("settings", session.settingsText)) }
        if fields.contains(.history) { change.fields.append(("history", session.history.json.text)) }
        if fields.contains(.ended) { change.fields.append(("ended", Self.ended(session))) }
        return change
    }

    /// All fields, as needed to create the session in Redis.
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

    /// Expiry of the hash in milliseconds since 1970: the session's expiry plus the time for a takeover (grace period and three leases).
    /// - Parameter isNew: the session is being opened, so its socket is not attached yet.
    private func keptUntil(_ session: Session, isNew: Bool) -> Int {
        let now = WallClock.milliseconds
        var end = session.expiry(settings.sessionTimeout)
        if session.isUnused, session.socket == nil, !isNew { end = min(end, now + Self.unusedTime.wholeMilliseconds) }
        return max(end, now) + settings.grace.wholeMilliseconds + 3 * settings.lease.wholeMilliseconds
    }
}
