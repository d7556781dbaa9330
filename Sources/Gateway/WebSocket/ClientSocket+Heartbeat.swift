import JSONCodec
import Logging
import NIOCore
import Support

/// The heartbeat of a registered socket and the expiry of its session.
extension ClientSocket {
    /// Attaches the socket to its session after a successful REGISTER, and starts the heartbeat.
    func registered(_ session: Session) {
        state = .registered(session)
        timer?.cancel()
        gateway.registry.attach(self, to: session)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let period = TimeAmount(settings.heartbeat)
        beats = eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in bound.value.beat() }
        watchExpiry(session)
    }

    /// Sends HEARTBEAT; closes the socket after two intervals without any data from the client.
    func beat() {
        guard let session else { return }
        silentBeats = wasHeard ? 0 : silentBeats + 1
        wasHeard = false
        guard silentBeats < 2 else { return close(.silent, "no data for two heartbeat intervals") }
        guard realtime == nil else { return ping() }
        send("HEARTBEAT", ["remaining_seconds": .integer(remainingSeconds(session))])
    }

    /// - Returns: seconds until the session expires; 0 when it has expired.
    func remainingSeconds(_ session: Session) -> Int {
        max(0, (session.expiry(settings.sessionTimeout) - WallClock.milliseconds) / 1000)
    }

    /// Warns about or ends an expiring session, and schedules the next check. A REQUEST postpones the expiry without rescheduling the
    /// check, which then finds that there is time left.
    func watchExpiry(_ session: Session) {
        if let realtime { return watchRealtimeExpiry(session, realtime) }
        let warning = min(settings.sessionWarning, settings.sessionTimeout / 2).wholeMilliseconds
        let left = session.expiry(settings.sessionTimeout) - WallClock.milliseconds
        if left <= 0, session.running.isEmpty {
            gateway.context.logger.info("session expired", metadata: ["session": "\(session.id)"])
            send(ProtocolError(.sessionInvalid, "the session expired"))
            gateway.registry.end(session)
            close(.unauthorized, "the session expired")
            return
        }
        if left <= warning, left > 0, !session.isWarned {
            session.isWarned = true
            send(
                "SESSION_WARN",
                [
                    "warn_type": "SESSION_EXPIRING", "remaining_seconds": .integer(left / 1000),
                    "message": "the session expires unless a request comes",
                ])
        }
        let next = left <= 0 ? 1000 : session.isWarned ? left : left - warning
        expiry = eventLoop.after(.milliseconds(max(next, 1))) { [weak self] in
            guard let self, let session = self.session else { return }
            self.watchExpiry(session)
        }
    }
}
