import Logging
import NIOCore
import Support

/// The session of a Realtime client: opened with the connection, ended with it or at its maximum duration.
extension ClientSocket {
    /// Opens a session for the client. Nothing is read meanwhile.
    func openRealtime(_ grant: RealtimeGrant) {
        registering()
        setReading(false)
        guard join(gateway.registry.accounts.tenant(grant.owner)) else {
            send(ProtocolError(.rateLimited, "too many open sockets for this tenant", retryable: true))
            close(.overloaded, "too many open sockets for this tenant")
            return setReading(true)
        }
        var settings = SessionSettings()
        settings.requiresSpeech = grant.configuration.modality == .audio
        settings.voiceRate = RealtimeInput.clientRate
        let registry = gateway.registry
        registry.open(owner: grant.owner, settings: settings) { [weak self] result in
            guard let self, case .registering = self.state else {
                if case .success(let session) = result { registry.end(session) }
                return
            }
            switch result {
            case .success(let session):
                self.registered(session)
                self.realtime?.opened(session)
                self.setReading(true)
            case .failure(let error):
                self.send(error)
                self.close(.overloaded, "the session could not be opened")
                self.setReading(true)
            }
        }
    }

    /// Ends a session at its maximum duration, however active it is.
    func watchRealtimeExpiry(_ session: Session, _ realtime: RealtimeConnection) {
        let left = session.createdMilliseconds + settings.sessionTimeout.wholeMilliseconds - WallClock.milliseconds
        guard left <= 0 else {
            expiry = eventLoop.after(.milliseconds(left)) { [weak self] in
                guard let self, let session = self.session, let realtime = self.realtime else { return }
                self.watchRealtimeExpiry(session, realtime)
            }
            return
        }
        gateway.context.logger.info("session expired", metadata: ["session": "\(session.id)"])
        realtime.expired()
        close(.normal, "the session has reached its maximum duration")
    }
}
