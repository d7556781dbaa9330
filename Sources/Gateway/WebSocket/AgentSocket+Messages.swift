import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore

/// What each message of a client does.
extension AgentSocket {
    func received(_ message: ByteBuffer) {
        let envelope: Envelope
        do { envelope = try Envelope(parsing: message, maximumDepth: settings.jsonDepthMaximum) } catch { return send(error) }
        take(envelope)
    }

    private func take(_ envelope: Envelope) {
        switch state {
        case .unregistered:
            guard envelope.kind == .register else {
                return send(ProtocolError(.sessionInvalid, "REGISTER comes first", requestID: requestID(envelope)))
            }
            register(envelope.payload)
        case .registering:
            guard envelope.kind != .register else { return send(.malformed("a second REGISTER")) }
            waiting.append(envelope)
        case .registered(let session):
            guard envelope.sessionID.isEmpty || envelope.sessionID == session.id else {
                return send(ProtocolError(.sessionInvalid, "there is no such session here", requestID: requestID(envelope)))
            }
            handle(envelope, in: session)
        case .closing, .closed: break
        }
    }

    private func requestID(_ envelope: Envelope) -> String? {
        envelope.payload["request_id"]?.string.flatMap { $0.utf8.count <= FieldLimit.requestID ? $0 : nil }
    }

    private func handle(_ envelope: Envelope, in session: Session) {
        do throws(ProtocolError) {
            switch envelope.kind {
            case .register: send(.malformed("a second REGISTER"))
            case .request: try request(try RequestPayload(envelope.payload), in: session)
            case .interrupt: try interrupt(try InterruptPayload(envelope.payload), in: session)
            case .resume:
                try node.host.resume(try ResumePayload(envelope.payload), in: session)
            case .sessionQuery: sendInfo(session, fields: envelope.payload["query_fields"])
            case .heartbeatReply: break
            case .healthCheck: sendHealth()
            case .shutdown:
                send("SHUTDOWN", ["reason": "as the client wished"])
                // Ended before the socket closes, or the grace would begin.
                node.host.end(session)
                close(.normal, "")
            }
        } catch {
            send(error)
        }
    }

    // MARK: REGISTER

    private func register(_ payload: JSONObject) {
        let registration: RegisterPayload
        do { registration = try RegisterPayload(payload, maximumSize: settings.sessionMaximum) } catch { return send(error) }
        registering()
        let authenticator = node.context.authenticator
        let (credential, address) = (registration.credential, address)
        node.context.await({ await authenticator.verdict(credential, from: address) }) { [weak self] verdict in
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

    private func openSession(_ payload: RegisterPayload, owner: String) {
        guard join(node.host.accounts.tenant(owner)) else {
            send(ProtocolError(.rateLimited, "too many of your sockets are open", retryable: true))
            return close(.overloaded, "too many sockets of this tenant")
        }
        let host = node.host
        let then: (Result<Session, ProtocolError>) -> Void = { [weak self] result in
            guard let self, case .registering = self.state else {
                if case .success(let session) = result { host.nobodyCame(for: session) }
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
            host.resume(id, owner: owner, then: then)
        } else {
            host.open(owner: owner, settings: payload.settings, then: then)
        }
    }

    private func acknowledge(_ session: Session) {
        registered(session)
        send(
            "REGISTER_ACK",
            [
                "status": "SUCCESS", "message": "registered", "session_id": .string(session.id),
                "session_timeout_seconds": .integer(settings.sessionTimeout.milliseconds / 1000),
            ])
        let envelopes = waiting
        waiting = []
        for envelope in envelopes { take(envelope) }
    }

    // MARK: REQUEST

    private func request(_ payload: RequestPayload, in session: Session) throws(ProtocolError) {
        func refusal(_ code: ErrorCode, _ message: String, retryable: Bool = false) -> ProtocolError {
            ProtocolError(code, message, retryable: retryable, requestID: payload.id)
        }
        if !payload.text.isEmpty {
            guard session.request(payload.id) == nil, session.endedRequest(payload.id) == nil else {
                throw refusal(.duplicateRequest, "the request_id is taken")
            }
            guard !node.context.readiness.isDraining else { throw refusal(.serverBusy, "the server is going down", retryable: true) }
            // What is superseded is on its way out, but may still be there when a client types fast.
            let maximum = payload.supersedes ? 2 * settings.requestsPerSocket : settings.requestsPerSocket
            guard session.running.count < maximum else {
                throw refusal(.rateLimited, "\(settings.requestsPerSocket) requests are running", retryable: true)
            }
            // One that takes another's place adds nothing.
            guard node.context.tenants.hasRoom(session.owner) || payload.supersedes && !session.running.isEmpty else {
                throw refusal(.rateLimited, "too many of your requests are running", retryable: true)
            }
        }
        guard session.account.hasRoom(for: session.cost(of: payload.text)) else {
            throw refusal(.rateLimited, "too many bytes of your requests are in memory", retryable: true)
        }
        if !payload.update.isEmpty {
            // Reading and writing the whole settings is what an update costs, however small its message.
            session.account.charge(session.settingsText.utf8.count)
            do {
                let changed = try payload.update.applied(to: session.settings, maximumSize: settings.sessionMaximum)
                if changed != session.settings {
                    session.settings = changed
                    node.host.save(session, .settings)
                }
            } catch {
                var error = error
                error.requestID = payload.id
                throw error
            }
        }
        if payload.text.isEmpty {
            node.host.touch(session)
        } else {
            node.host.start(payload, in: session)
        }
    }

    // MARK: INTERRUPT

    /// Charged and held for each request id of an INTERRUPT until it is acknowledged, bytes.
    private static let interruptCost = 512

    private func interrupt(_ payload: InterruptPayload, in session: Session) throws(ProtocolError) {
        let targets: [(id: String, request: RunningRequest?)] =
            payload.ids?.map { ($0, session.request($0)) } ?? session.running.map { ($0.id, $0) }
        guard !targets.isEmpty else { return acknowledge(payload, [], []) }
        let (account, bytes) = (session.account, targets.count * Self.interruptCost)
        account.charge(bytes)
        guard account.hasRoom(forInterrupt: bytes) else {
            throw ProtocolError(.rateLimited, "too many of your interrupts wait for their answers", retryable: true)
        }
        account.hold(bytes)
        let collector = InterruptCollector(ids: targets.map(\.id)) { [weak self] results, interrupted in
            account.release(bytes)
            self?.acknowledge(payload, results, interrupted)
        }
        for (index, (id, request)) in targets.enumerated() {
            guard let request else {
                collector.answered(index, state: session.endedRequest(id)?.ending.rawValue ?? "unknown", stored: false)
                continue
            }
            node.host.interrupt(request, in: session, reason: payload.reason) { answer in
                let state =
                    answer?.state?.rawValue ?? session.endedRequest(id)?.ending.rawValue
                    ?? (session.request(id) == nil ? "unknown" : "running")
                collector.answered(index, state: state, stored: answer?.stored ?? false)
            }
        }
    }

    private func acknowledge(_ payload: InterruptPayload, _ results: [(id: String, state: String)], _ interrupted: [String]) {
        let status = interrupted.isEmpty ? "FAILED" : interrupted.count == results.count ? "SUCCESS" : "PARTIAL"
        let message =
            switch status {
            case "SUCCESS": "interrupted"
            case "PARTIAL": "some were not running"
            default: "nothing was interrupted"
            }
        send(
            "INTERRUPT_ACK",
            [
                "interrupt_request_id": payload.echo ?? .null, "interrupted_request_ids": .array(interrupted.map(JSON.string)),
                "status": .string(status), "message": .string(message),
                "results": .array(results.map { ["request_id": .string($0.id), "state": .string($0.state)] }),
            ])
    }

    // MARK: asking

    /// - Parameter fields: names of `session_data` that are wanted; absent or empty: all.
    private func sendInfo(_ session: Session, fields: JSON?) {
        session.account.charge(session.settingsText.utf8.count)
        let wanted = Set((fields?.array ?? []).compactMap(\.string))
        let all: [JSONObject.Member] = [
            .init(name: "platform", value: .string(session.settings.platform.rawValue)),
            .init(name: "require_tts", value: .bool(session.settings.requiresSpeech)),
            .init(name: "enable_srs", value: .bool(session.settings.enablesRecognition)),
            .init(name: "function_calling", value: .array(session.settings.functions.map { .object($0.source) })),
            .init(name: "create_time", value: .integer(session.createdMilliseconds)),
            .init(name: "remaining_seconds", value: .integer(remainingSeconds(session))),
            .init(name: "active_request_ids", value: .array(session.running.map { .string($0.id) })),
        ]
        let data = JSONObject(all.filter { wanted.isEmpty || wanted.contains($0.name) })
        send("SESSION_INFO", ["status": "SUCCESS", "message": "", "session_data": .object(data)])
    }

    private func sendHealth() {
        let status: JSON = node.context.readiness.problem == nil ? "HEALTHY" : "UNHEALTHY"
        let share = node.processor.percent
        send(
            "HEALTH_CHECK_ACK",
            [
                "health_status": [
                    "status": status, "conn_count": .integer(node.ledger.count), "cpu_usage": .number(String((share * 10).rounded() / 10)),
                ]
            ])
    }
}

/// Gathers the answers to one INTERRUPT, however they come.
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
