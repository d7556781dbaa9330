import Contract
import JSONCodec

/// The client side of the WebSocket protocol for `sluice chat`, as a state machine without I/O.
struct ChatMachine {
    enum Input {
        case connected
        /// All attempts to connect failed, for this reason.
        case unreachable(String)
        case message(JSON)
        case closed(code: Int?, reason: String)
        case line(String)
        case endOfInput
        /// Ctrl-C.
        case interrupt
    }

    /// What the session has to do, in order.
    enum Action: Equatable {
        case send(JSON)
        /// A piece of the answer.
        case answer(String)
        /// The answer has ended; the next output begins on a new line.
        case endOfAnswer
        /// A note about the conversation, on a line of its own.
        case note(String)
        case receipt(ChatReceipt)
        case prompt
        case connect
        case leave(ExitStatus, String)
    }

    /// The running request.
    private struct Request {
        var id: String
        var text: String
        /// The id of the last event received.
        var eventID: String?
        var hasText = false
        /// Monotonic nanoseconds, like the following ones.
        var interruptedAt: UInt64?
        var acknowledgedAt: UInt64?
        var endedAt: UInt64?
        /// The payload of the closing frame.
        var closing: JSON?
    }

    private enum State {
        /// Waiting for a connection, then for REGISTER_ACK; a running request is then resumed. Next: `ready`.
        case connecting
        /// Registered. Next: `connecting`, when the connection is lost.
        case ready
    }

    private let key: String
    private let model: String?
    /// Whether the client leaves after one answer.
    private let isSingle: Bool
    private var state = State.connecting
    private var sessionID: String?
    private var request: Request?
    /// Prompts that wait for the end of the running answer; at most 1,000.
    private var lines: [String] = []
    private var hasInputEnded = false
    private var hasFailed = false
    /// The number of requests so far; part of the request's id.
    private var number = 0
    private let runID: String

    /// - Parameters:
    ///   - prompt: a single prompt; nil: prompts are read from standard input.
    ///   - runID: prefix of the request ids.
    init(key: String?, model: String?, prompt: String?, runID: String) {
        // A gateway without authentication requires a key too, but accepts any.
        self.key = key ?? "none"
        self.model = model
        self.runID = runID
        isSingle = prompt != nil
        hasInputEnded = prompt != nil
        if let prompt { lines = [prompt] }
    }

    /// Applies an input.
    /// - Parameters:
    ///   - now: monotonic nanoseconds.
    ///   - milliseconds: Unix time.
    /// - Returns: the actions to carry out, in order.
    mutating func handle(_ input: Input, now: UInt64, milliseconds: Int64) -> [Action] {
        var actions: [Action] = []
        switch input {
        case .connected: actions.append(send("REGISTER", registration, milliseconds))
        case .unreachable(let why): actions.append(.leave(.unavailable, why))
        case .message(let message): receive(message, now, milliseconds, &actions)
        case .closed(let code, let reason): closed(code, reason, &actions)
        case .line(let line):
            if lines.count < 1_000 { lines.append(line) }
            advance(milliseconds, &actions)
        case .endOfInput:
            hasInputEnded = true
            advance(milliseconds, &actions)
        case .interrupt: interrupt(now, milliseconds, &actions)
        }
        return actions
    }

    /// A message of the protocol.
    private func send(_ type: String, _ payload: JSON, _ milliseconds: Int64) -> Action {
        .send([
            "version": "1.0", "msg_type": .string(type), "session_id": .string(sessionID ?? ""), "payload": payload,
            "timestamp": .integer(milliseconds),
        ])
    }

    /// The payload of REGISTER, which resumes the session if there is one.
    private var registration: JSON {
        var members = JSONObject()
        members["auth"] = ["type": "API_KEY", "api_key": .string(key)]
        members["platform"] = "APP"
        members["require_tts"] = false
        members["enable_srs"] = false
        members["function_calling"] = []
        members["resume_session_id"] = sessionID.map(JSON.string)
        return .object(members)
    }

    /// The REQUEST message of a request.
    private func requestMessage(_ request: Request, _ milliseconds: Int64) -> Action {
        var members = JSONObject()
        members["request_id"] = .string(request.id)
        members["data_type"] = "TEXT"
        members["stream_flag"] = false
        members["stream_seq"] = 0
        members["content"] = ["text": .string(request.text)]
        members["model"] = model.map(JSON.string)
        return send("REQUEST", .object(members), milliseconds)
    }

    /// Sends the next prompt when no request is running. Leaves when the input has ended.
    private mutating func advance(_ milliseconds: Int64, _ actions: inout [Action]) {
        guard case .ready = state, request == nil else { return }
        while let line = lines.first {
            lines.removeFirst()
            guard !line.allSatisfy(\.isWhitespace) else { continue }
            number += 1
            let next = Request(id: "\(runID)-\(number)", text: line)
            request = next
            actions.append(requestMessage(next, milliseconds))
            return
        }
        if hasInputEnded {
            actions.append(send("SHUTDOWN", ["reason": "done"], milliseconds))
            actions.append(.leave(hasFailed ? .failed : .done, ""))
        } else {
            actions.append(.prompt)
        }
    }

    // MARK: Messages

    /// Handles a message of the gateway.
    private mutating func receive(_ message: JSON, _ now: UInt64, _ milliseconds: Int64, _ actions: inout [Action]) {
        let payload = message["payload"] ?? [:]
        switch message["msg_type"]?.string {
        case "REGISTER_ACK":
            sessionID = payload["session_id"]?.string ?? message["session_id"]?.string
            state = .ready
            guard let request else { return advance(milliseconds, &actions) }
            var members = JSONObject()
            members["request_id"] = .string(request.id)
            members["last_event_id"] = request.eventID.map(JSON.string)
            actions.append(send("RESUME", .object(members), milliseconds))
        case "RESPONSE": respond(payload, now, milliseconds, &actions)
        case "INTERRUPT_ACK":
            guard request?.interruptedAt != nil else { return }
            if request?.acknowledgedAt == nil { request?.acknowledgedAt = now }
            finish(milliseconds, &actions)
        case "HEARTBEAT": actions.append(send("HEARTBEAT_REPLY", [:], milliseconds))
        case "SESSION_WARN": actions.append(.note(payload["message"]?.string ?? "the session ends soon"))
        case "ERROR": fail(payload, milliseconds, &actions)
        default: break
        }
    }

    /// Handles a RESPONSE of the running request; those of other requests are ignored.
    private mutating func respond(_ payload: JSON, _ now: UInt64, _ milliseconds: Int64, _ actions: inout [Action]) {
        guard payload["request_id"]?.string == request?.id, request != nil, request?.endedAt == nil else { return }
        if let id = payload["event_id"]?.string { request?.eventID = id }
        if payload["restarted"]?.bool == true {
            if request?.hasText == true { actions.append(.endOfAnswer) }
            actions.append(.note("the worker was lost; another one restarts the answer"))
            request?.hasText = false
        }
        if let text = payload["content"]?["text"]?.string, !text.isEmpty {
            request?.hasText = true
            actions.append(.answer(text))
        }
        if let call = payload["function_call"], let name = call["name"]?.string {
            actions.append(.note("calls \(name) with \(call["parameters"]?.text ?? "nothing")"))
        }
        if payload["text_stream_seq"]?.integer == -1 || payload["finish_reason"]?.string != nil {
            request?.endedAt = now
            request?.closing = payload
            actions.append(.endOfAnswer)
            finish(milliseconds, &actions)
        }
    }

    /// Completes the request when its closing frame has arrived and, if it was interrupted, the acknowledgement too.
    private mutating func finish(_ milliseconds: Int64, _ actions: inout [Action]) {
        guard let request, let ended = request.endedAt, request.interruptedAt == nil || request.acknowledgedAt != nil else { return }
        if let interrupted = request.interruptedAt {
            actions.append(
                .receipt(
                    ChatReceipt(
                        closing: request.closing ?? [:], closed: ended - interrupted,
                        acknowledged: request.acknowledgedAt.map { $0 - interrupted })))
        } else if let reason = request.closing?["finish_reason"]?.string, reason != "stop", reason != "tool_calls" {
            actions.append(.note("ended: \(reason)"))
        }
        self.request = nil
        advance(milliseconds, &actions)
    }

    /// Handles an ERROR message.
    private mutating func fail(_ payload: JSON, _ milliseconds: Int64, _ actions: inout [Action]) {
        let code = payload["error_code"]?.string ?? "ERROR"
        let detail = payload["error_detail"]?.string.flatMap { $0.isEmpty ? nil : " (\($0))" } ?? ""
        let text = "\(code)\(detail): \(payload["error_msg"]?.string ?? "")"
        guard let id = payload["request_id"]?.string, !id.isEmpty else {
            guard case .connecting = state else { return actions.append(.note(text)) }
            if code == "SESSION_INVALID", sessionID != nil {
                // The session expired while the client was disconnected. A new one does not know the request.
                sessionID = nil
                if request != nil {
                    request = nil
                    hasFailed = true
                    actions.append(.endOfAnswer)
                }
                actions.append(.note("the session expired; a new one was started"))
                return actions.append(send("REGISTER", registration, milliseconds))
            }
            return actions.append(.leave(.failed, "sluice: the gateway rejected the registration: \(text)"))
        }
        guard id == request?.id else { return }
        if code == "SESSION_INVALID", let request, request.eventID == nil, request.endedAt == nil {
            // The connection was lost before the gateway received the request.
            return actions.append(requestMessage(request, milliseconds))
        }
        hasFailed = true
        if request?.hasText == true { actions.append(.endOfAnswer) }
        request = nil
        if isSingle { return actions.append(.leave(.failed, "sluice: \(text)")) }
        actions.append(.note(text))
        advance(milliseconds, &actions)
    }

    // MARK: Other inputs

    /// Leaves when the close code says that reconnecting is useless; reconnects otherwise.
    private mutating func closed(_ code: Int?, _ reason: String, _ actions: inout [Action]) {
        switch code {
        case 4401, 4403, 4408, 4429, 1002, 1003, 1007, 1009:
            actions.append(
                .leave(.failed, "sluice: the gateway closed the connection (\(code ?? 0)\(reason.isEmpty ? "" : ", \(reason)"))"))
        default:
            state = .connecting
            actions.append(.connect)
        }
    }

    /// Interrupts the running request. Leaves when there is none, or when it is being interrupted already.
    private mutating func interrupt(_ now: UInt64, _ milliseconds: Int64, _ actions: inout [Action]) {
        guard case .ready = state, let current = request, current.interruptedAt == nil, current.endedAt == nil else {
            if case .ready = state { actions.append(send("SHUTDOWN", ["reason": "done"], milliseconds)) }
            return actions.append(.leave(hasFailed ? .failed : .done, ""))
        }
        request?.interruptedAt = now
        actions.append(send("INTERRUPT", ["interrupt_request_id": .string(current.id), "reason": "USER_STOP"], milliseconds))
    }
}

/// The effect of an interrupt as measured by the client.
struct ChatReceipt: Equatable {
    /// The closing frame's payload.
    let closing: JSON
    /// Nanoseconds from Ctrl-C to the closing frame.
    let closed: UInt64
    /// Nanoseconds from Ctrl-C to the acknowledgement.
    let acknowledged: UInt64?

    var text: String {
        guard closing["interrupted"]?.bool == true else {
            return "too late: the answer had ended (\(closing["finish_reason"]?.string ?? "?"))"
        }
        var parts = ["interrupted while \(closing["phase"]?.string ?? "?")"]
        if let usage = Usage(closing["usage"]) {
            var text = "\(usage.completionTokens) token\(usage.completionTokens == 1 ? "" : "s") generated"
            if usage.estimated { text += " (estimated)" }
            if let delivered = closing["delivered_tokens"]?.integer, delivered < usage.completionTokens {
                text += ", \(delivered) delivered"
            }
            parts.append(text)
        }
        if let saved = closing["saved_tokens"]?.integer { parts.append("\(saved) of the tokens asked for saved") }
        parts.append("stopped after \(Self.milliseconds(closed)) ms")
        if let acknowledged { parts.append("acknowledged after \(Self.milliseconds(acknowledged)) ms") }
        if let latency = closing["latency_us"]?.integer { parts.append("upstream closed \(latency) µs after the signal") }
        return parts.joined(separator: " · ")
    }

    var json: JSON {
        var members = JSONObject()
        members["interrupted"] = .bool(closing["interrupted"]?.bool ?? false)
        members["phase"] = closing["phase"]
        members["usage"] = closing["usage"]
        members["delivered_tokens"] = closing["delivered_tokens"]
        members["saved_tokens"] = closing["saved_tokens"]
        members["closed_ms"] = .number(Self.milliseconds(closed))
        members["acknowledged_ms"] = acknowledged.map { .number(Self.milliseconds($0)) }
        members["latency_us"] = closing["latency_us"]
        return ["receipt": .object(members)]
    }

    /// Milliseconds with one decimal.
    private static func milliseconds(_ nanoseconds: UInt64) -> String {
        let tenths = (nanoseconds + 50_000) / 100_000
        return "\(tenths / 10).\(tenths % 10)"
    }
}
