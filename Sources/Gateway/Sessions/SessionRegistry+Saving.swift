import Contract
import JSONCodec
import JobQueue
import Logging
import Support

/// Writing of sessions to Redis. Each session has at most one write of changes in flight; changes made meanwhile are combined into the next
/// write. Only the field of a new request is written immediately, before its job is submitted.
extension SessionRegistry {
    /// How long a session without any REQUEST is kept after its client disconnected; enough for a short network outage.
    private static let unusedTime = Duration.seconds(60)

    /// Marks fields as changed and writes them, immediately or after the write in flight.
    /// - Parameter request: a request to delete from the record.
    func save(_ session: Session, _ fields: UnsavedChanges.Fields, deleting request: RunningRequest? = nil) {
        guard !session.isOver else { return }
        session.unsaved.fields.formUnion(fields)
        if let request { session.unsaved.endedRequests.insert(request.id) }
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
        // A rejected request may have had the same id; its pending deletion must not remove the new field.
        session.unsaved.endedRequests.remove(request.id)
        var change = SessionChange()
        change.setLastRequest(session.lastRequestMilliseconds)
        change.add(request.record)
        write(session, change, creating: .no) { saved in
            if case .overQuota = saved { request.exceedsQuota = true }
        }
    }

    /// Starts a write of all changes, unless one is in flight.
    private func writeUnsaved(_ session: Session) {
        guard !session.isSaving, !session.unsaved.isEmpty, !session.isOver else { return }
        // When the account is over its memory limit, `saveUnsaved` retries at the next heartbeat.
        guard session.account.hasRoom(for: session.cost(of: "")) else { return }
        let change = session.unsaved.fields.contains(.all) ? everything(of: session) : changes(of: session)
        let endedRequests = session.unsaved.endedRequests
        session.unsaved = UnsavedChanges()
        session.isSaving = true
        write(session, change, creating: .no) { saved in
            session.isSaving = false
            if case .failed = saved { return session.unsaved.endedRequests.formUnion(endedRequests) }
            self.writeUnsaved(session)
            self.forgetIfIdle(session)
        }
    }

    /// Writes a change and handles its result: a session that was taken over is dropped, one missing in Redis is written again, and a
    /// failed write is retried as a whole at the next heartbeat.
    /// - Parameter then: called on the event loop, after that.
    func write(
        _ session: Session, _ change: SessionChange, creating: SessionStore.Creation, then: @escaping (SessionStore.Saved) -> Void
    ) {
        let bytes = change.size
        session.account.hold(bytes)
        session.account.charge(bytes)
        session.savedMilliseconds = WallClock.milliseconds
        store.save(
            session.id, owner: session.owner, epoch: session.epoch, expires: keptUntil(session, isNew: creating == .withinQuota),
            isBusy: !session.running.isEmpty, creating: creating, change: change
        ) { [self] saved in
            session.account.release(bytes)
            switch saved {
            case .saved: break
            case .savedInPart: reportQuota(session)
            case .lost: lose(session)
            case .missing where creating == .no: recreate(session)
            case .missing, .overQuota: break
            case .failed: session.unsaved.fields.insert(.all)
            }
            then(saved)
        }
    }

    /// Writes all fields of a session that Redis lost, for example in a restart without its data.
    func recreate(_ session: Session) {
        guard !session.isOver else { return }
        write(session, everything(of: session), creating: .always) { _ in }
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
    private func changes(of session: Session) -> SessionChange {
        var change = SessionChange()
        change.remove(session.unsaved.endedRequests)
        change.setLastRequest(session.lastRequestMilliseconds)
        let fields = session.unsaved.fields
        if fields.contains(.settings) { change.setSettings(session.settingsText) }
        if fields.contains(.history) { change.setHistory(session.history.json) }
        if fields.contains(.ended) { change.setEnded(session.ended) }
        return change
    }

    /// All fields, as needed to create the session in Redis.
    func everything(of session: Session) -> SessionChange {
        let current = Set(session.running.map(\.id))
        var change = SessionChange()
        change.remove(session.unsaved.endedRequests.subtracting(current))
        change.setOrigin(owner: session.owner, createdMilliseconds: session.createdMilliseconds)
        change.setLastRequest(session.lastRequestMilliseconds)
        change.setSettings(session.settingsText)
        change.setHistory(session.history.json)
        change.setEnded(session.ended)
        for request in session.running { change.add(request.record) }
        return change
    }

    /// Expiry of the hash in milliseconds since 1970: the session's expiry plus the time for a takeover (grace period and three leases).
    /// - Parameter isNew: the session is being opened, so its socket is not attached yet.
    private func keptUntil(_ session: Session, isNew: Bool) -> Int {
        let now = WallClock.milliseconds
        var end = session.expiry(settings.sessionTimeout)
        if session.isUnused, session.socket == nil, !isNew { end = min(end, now + Self.unusedTime.wholeMilliseconds) }
        return max(end, now) + settings.grace.wholeMilliseconds + 3 * settings.lease.wholeMilliseconds
    }
}
