import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore
import Support

/// Handling of the client's messages.
extension ClientSocket {
    /// Parses and handles one text message; answers malformed ones with an error.
    func received(_ message: ByteBuffer) {
        if let realtime { return realtime.received(message) }
        let envelope: Envelope
        var values = 0
        defer { account.charge(TrafficAccount.cost(ofValues: values)) }
        do { envelope = try Envelope(parsing: message, maximumDepth: settings.jsonDepthMaximum, values: &values) } catch {
            return send(error)
        }
        take(envelope)
    }

    /// Dispatches a message by the state of the socket. Before REGISTER only that is accepted, and HEALTH_CHECK; while it is processed, messages
    /// are queued.
    private func take(_ envelope: Envelope) {
        switch state {
        case .unregistered where envelope.kind == .healthCheck, .registering where envelope.kind == .healthCheck: sendHealth()
        case .unregistered:
            guard envelope.kind == .register else {
                return send(ProtocolError(.sessionInvalid, "send REGISTER first", requestID: requestID(envelope)))
            }
            register(envelope.payload)
        case .registering:
            guard envelope.kind != .register else { return send(.malformed("REGISTER was already sent on this connection")) }
            waiting.append(envelope)
        case .registered(let session):
            guard envelope.sessionID.isEmpty || envelope.sessionID == session.id else {
                return send(ProtocolError(.sessionInvalid, "session_id is not this connection's session", requestID: requestID(envelope)))
            }
            handle(envelope, in: session)
        case .closing, .closed: break
        }
    }

    /// The message's `request_id`, for an ERROR; nil when absent or too long.
    private func requestID(_ envelope: Envelope) -> String? {
        envelope.payload.readableRequestID
    }

    /// Handles a message of a registered socket.
    private func handle(_ envelope: Envelope, in session: Session) {
        do throws(ProtocolError) {
            switch envelope.kind {
            case .register: send(.malformed("REGISTER was already sent on this connection"))
            case .request:
                let payload = try RequestPayload(envelope.payload, recognizesSpeech: settings.recognizes)
                if let voice = payload.voice {
                    try self.voice(payload, voice, in: session)
                } else {
                    try gateway.registry.request(payload, in: session)
                }
            case .interrupt: try interrupt(try InterruptPayload(envelope.payload), in: session)
            case .resume: try gateway.registry.resume(try ResumePayload(envelope.payload), in: session)
            case .played:
                let played = try PlayedPayload(envelope.payload)
                try gateway.registry.played(played.id, milliseconds: played.milliseconds, in: session)
            case .sessionQuery: sendInfo(session, fields: envelope.payload["query_fields"])
            case .heartbeatReply: break
            case .healthCheck: sendHealth()
            case .shutdown:
                send("SHUTDOWN", ["reason": "requested by the client"])
                // End the session before the socket closes, which would otherwise start the grace period.
                gateway.registry.end(session)
                close(.normal, "")
            }
        } catch {
            send(error)
        }
    }

    // MARK: REGISTER

    /// Authenticates the client, then opens or resumes its session. Passwords are verified on other threads.
    private func register(_ payload: JSONObject) {
        let registration: RegisterPayload
        do { registration = try RegisterPayload(payload, maximumSize: settings.sessionMaximum) } catch { return send(error) }
        registering()
        let authenticator = gateway.context.authenticator
        gateway.context.backgroundTasks.startOnLoop { [weak self, address] in
            let verdict = await authenticator.verdict(registration.credential, from: address)
            guard let self, case .registering = self.state else { return }
            switch verdict {
            case .tenant(let tenant): self.openSession(registration, owner: tenant.name)
            case .refused:
                self.send(ProtocolError(.authFailed, "the credentials were not accepted"))
                self.close(.unauthorized, "not authenticated")
            case .busy:
                self.send(ProtocolError(.serverBusy, "too many passwords are being verified; try again", retryable: true))
                self.close(.overloaded, "too many passwords are being verified")
            }
        }
    }

    /// Opens or resumes the session after authentication. Messages that arrive meanwhile are queued in `waiting`.
    private func openSession(_ payload: RegisterPayload, owner: String) {
        guard join(gateway.registry.accounts.tenant(owner)) else {
            send(ProtocolError(.rateLimited, "too many open sockets for this tenant", retryable: true))
            return close(.overloaded, "too many open sockets for this tenant")
        }
        let registry = gateway.registry
        let then: (Result<Session, ProtocolError>) -> Void = { [weak self] result in
            guard let self, case .registering = self.state else {
                if case .success(let session) = result { registry.releaseUnclaimed(session) }
                return
            }
            switch result {
            case .success(let session): self.acknowledge(session)
            case .failure(let error):
                self.awaitRegister()
                self.send(error)
                let envelopes = self.waiting
                self.waiting = []
                for envelope in envelopes { self.take(envelope) }
            }
        }
        if let id = payload.resumedSession {
            registry.resume(id, owner: owner, then: then)
        } else {
            registry.open(owner: owner, settings: payload.settings, then: then)
        }
    }

    /// Sends REGISTER_ACK, then handles the queued messages.
    private func acknowledge(_ session: Session) {
        registered(session)
        send(
            "REGISTER_ACK",
            [
                "status": "SUCCESS", "message": "registered", "session_id": .string(session.id),
                "session_timeout_seconds": .integer(settings.sessionTimeout.wholeSeconds),
            ])
        let envelopes = waiting
        waiting = []
        for envelope in envelopes { take(envelope) }
    }

    // MARK: INTERRUPT

    /// Charged and held for each request id of an INTERRUPT until it is acknowledged, bytes.
    private static let interruptCost = 512

    /// Interrupts the named requests, or all running ones, and acknowledges once all have a result. Next on the path of an interrupt:
    /// `SessionRegistry.interrupt`.
    private func interrupt(_ payload: InterruptPayload, in session: Session) throws(ProtocolError) {
        var targets: [(id: String, request: RunningRequest?)] =
            payload.ids?.map { ($0, session.request($0)) } ?? session.running.map { ($0.id, $0) }
        // A VOICE request whose audio is still coming.
        let open = upload.flatMap { upload in payload.ids?.contains(upload.id) ?? true ? upload.id : nil }
        if open != nil { interruptUpload(reason: payload.reason, in: session) }
        if let milliseconds = payload.playedMilliseconds {
            for target in targets { gateway.registry.notePlayed(target.id, milliseconds: milliseconds, in: session) }
        }
        if let open, payload.ids == nil { targets.append((open, nil)) }
        guard !targets.isEmpty else { return acknowledge(payload, [], []) }
        let (account, bytes) = (session.account, targets.count * Self.interruptCost)
        account.charge(bytes)
        guard account.hasRoom(forInterrupt: bytes) else {
            throw ProtocolError(.rateLimited, "too many of your interrupts are unanswered", retryable: true)
        }
        account.hold(bytes)
        let collector = InterruptCollector(ids: targets.map(\.id)) { [weak self] results, interrupted in
            account.release(bytes)
            self?.acknowledge(payload, results, interrupted)
        }
        for (index, (id, request)) in targets.enumerated() {
            if id == open {
                collector.answered(index, state: "queued", stored: true)
                continue
            }
            guard let request else {
                collector.answered(index, state: session.endedRequest(id)?.ending.rawValue ?? "unknown", stored: false)
                continue
            }
            gateway.registry.interrupt(request, in: session, reason: payload.reason) { answer in
                let state =
                    answer?.state?.rawValue ?? session.endedRequest(id)?.ending.rawValue
                    ?? (session.request(id) == nil ? "unknown" : "running")
                if answer?.stored == true { request.silence() }
                collector.answered(index, state: state, stored: answer?.stored ?? false)
            }
        }
    }

    /// Sends INTERRUPT_ACK.
    private func acknowledge(_ payload: InterruptPayload, _ results: [(id: String, state: String)], _ interrupted: [String]) {
        let status = interrupted.isEmpty ? "FAILED" : interrupted.count == results.count ? "SUCCESS" : "PARTIAL"
        let message =
            switch status {
            case "SUCCESS": "interrupted"
            case "PARTIAL": "some requests were not running"
            default: "no request was interrupted"
            }
        send(
            "INTERRUPT_ACK",
            [
                "interrupt_request_id": payload.echo ?? .null, "interrupted_request_ids": .array(interrupted.map(JSON.string)),
                "status": .string(status), "message": .string(message),
                "results": .array(results.map { ["request_id": .string($0.id), "state": .string($0.state)] }),
            ])
    }

    // MARK: queries

    /// Sends SESSION_INFO.
    /// - Parameter fields: names of the `session_data` members to include; absent or empty: all.
    private func sendInfo(_ session: Session, fields: JSON?) {
        session.account.charge(session.settingsText.utf8.count)
        let wanted = Set((fields?.array ?? []).compactMap(\.string))
        let all: [JSONObject.Member] = [
            .init(name: "platform", value: .string(session.settings.platform.rawValue)),
            .init(name: "require_tts", value: .bool(session.settings.requiresSpeech)),
            .init(name: "enable_srs", value: .bool(session.settings.enablesRetrieval)),
            .init(name: "function_calling", value: .array(session.settings.functions.map { .object($0.source) })),
            .init(name: "create_time", value: .integer(session.createdMilliseconds)),
            .init(name: "remaining_seconds", value: .integer(remainingSeconds(session))),
            .init(name: "active_request_ids", value: .array(session.running.map { .string($0.id) })),
        ]
        let data = JSONObject(all.filter { wanted.isEmpty || wanted.contains($0.name) })
        send("SESSION_INFO", ["status": "SUCCESS", "message": "", "session_data": .object(data)])
    }

    /// Sends HEALTH_CHECK_ACK.
    private func sendHealth() {
        let status: JSON = gateway.context.readiness.problem == nil ? "HEALTHY" : "UNHEALTHY"
        let share = gateway.processor.percent
        send(
            "HEALTH_CHECK_ACK",
            [
                "health_status": [
                    "status": status, "conn_count": .integer(gateway.ledger.count),
                    "cpu_usage": .number(String((share * 10).rounded() / 10)),
                ]
            ])
    }
}

/// Collects the results of all requests named by one INTERRUPT, in any order, and calls `then` once all are there.
private final class InterruptCollector {
    private let ids: [String]
    private var states: [String?]
    private var stored: [Bool]
    private var left: Int
    private let then: ([(id: String, state: String)], [String]) -> Void

    init(ids: [String], then: @escaping ([(id: String, state: String)], [String]) -> Void) {
        self.ids = ids
        states = Array(repeating: nil, count: ids.count)
        stored = Array(repeating: false, count: ids.count)
        left = ids.count
        self.then = then
    }

    /// Records the result for one id; a repeated call for the same index is ignored.
    func answered(_ index: Int, state: String, stored isStored: Bool) {
        guard states[index] == nil else { return }
        states[index] = state
        stored[index] = isStored
        left -= 1
        guard left == 0 else { return }
        let results = zip(ids, states).map { (id: $0, state: $1 ?? "unknown") }
        then(results, zip(ids, stored).filter { $1 }.map { $0.0 })
    }
}
