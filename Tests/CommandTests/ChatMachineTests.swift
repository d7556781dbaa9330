import Contract
import JSONCodec
import Testing

@testable import OperatorTools

@Suite("Protocol of the terminal client")
struct ChatMachineTests {
    /// A machine with a clock that advances by 1 ms per input.
    private struct Driver {
        var machine: ChatMachine
        var now: UInt64 = 1_000_000_000

        init(prompt: String? = nil) {
            machine = ChatMachine(key: "k", model: "m", prompt: prompt, runID: "run")
        }

        mutating func callAsFunction(_ input: ChatMachine.Input) -> [ChatMachine.Action] {
            now += 1_000_000
            return machine.handle(input, now: now, milliseconds: 5)
        }

        mutating func message(_ type: String, _ payload: JSON) -> [ChatMachine.Action] {
            self(.message(["version": "1.0", "msg_type": .string(type), "session_id": "s", "payload": payload, "timestamp": 1]))
        }

        mutating func register() -> [ChatMachine.Action] {
            _ = self(.connected)
            return message("REGISTER_ACK", ["status": "SUCCESS", "session_id": "s"])
        }

        mutating func text(_ text: String, event: String = "1-2", request: String = "run-1") -> [ChatMachine.Action] {
            message(
                "RESPONSE",
                ["request_id": .string(request), "event_id": .string(event), "text_stream_seq": 0, "content": ["text": .string(text)]])
        }

        mutating func close(request: String = "run-1") -> [ChatMachine.Action] {
            message(
                "RESPONSE",
                [
                    "request_id": .string(request), "event_id": "1-9", "text_stream_seq": -1, "content": [:], "finish_reason": "stop",
                    "usage": .null,
                ])
        }
    }

    private func sent(_ actions: [ChatMachine.Action]) -> [String] {
        actions.compactMap { if case .send(let message) = $0 { message["msg_type"]?.string } else { nil } }
    }

    private func payload(_ actions: [ChatMachine.Action], _ type: String) -> JSON? {
        actions.lazy.compactMap { if case .send(let message) = $0, message["msg_type"]?.string == type { message["payload"] } else { nil } }
            .first
    }

    @Test func `a single prompt is answered and the client leaves`() {
        var chat = Driver(prompt: "hello")
        let registration = payload(chat(.connected), "REGISTER")
        #expect(registration?["auth"] == ["type": "API_KEY", "api_key": "k"])
        let asked = payload(chat.message("REGISTER_ACK", ["session_id": "s"]), "REQUEST")
        #expect(asked?["request_id"] == "run-1")
        #expect(asked?["content"]?["text"] == "hello")
        #expect(asked?["model"] == "m")
        #expect(chat.text("Hi") == [.answer("Hi")])
        let end = chat.close()
        #expect(end.first == .endOfAnswer)
        #expect(sent(end) == ["SHUTDOWN"])
        #expect(end.last == .leave(.done, ""))
    }

    @Test func `lines wait for the end of the previous answer`() {
        var chat = Driver()
        #expect(chat.register() == [.prompt])
        #expect(sent(chat(.line("one"))) == ["REQUEST"])
        #expect(chat(.line("two")) == [])
        #expect(chat(.endOfInput) == [])
        #expect(payload(chat.close(), "REQUEST")?["content"]?["text"] == "two")
        #expect(chat.close(request: "run-2").last == .leave(.done, ""))
    }

    @Test func `empty lines are ignored`() {
        var chat = Driver()
        _ = chat.register()
        #expect(chat(.line("  ")) == [.prompt])
    }

    @Test func `Ctrl-C interrupts and the receipt contains the client's times`() throws {
        var chat = Driver()
        _ = chat.register()
        _ = chat(.line("long"))
        _ = chat.text("a")
        let interrupt = payload(chat(.interrupt), "INTERRUPT")
        #expect(interrupt == ["interrupt_request_id": "run-1", "reason": "USER_STOP"])
        // The acknowledgement after 1 ms, the closing frame after 2 ms.
        #expect(chat.message("INTERRUPT_ACK", ["status": "SUCCESS"]) == [])
        let end = chat.message(
            "RESPONSE",
            [
                "request_id": "run-1", "event_id": "1-4", "text_stream_seq": -1, "content": [:], "finish_reason": "interrupted",
                "interrupted": true,
                "phase": "streaming", "usage": ["prompt_tokens": 1, "completion_tokens": 7, "estimated": true],
                "delivered_tokens": 5, "saved_tokens": 93,
            ])
        let receipt = try #require(end.compactMap { if case .receipt(let receipt) = $0 { receipt } else { nil } }.first)
        #expect(receipt.closed == 2_000_000)
        #expect(receipt.acknowledged == 1_000_000)
        #expect(
            receipt.text
                == "interrupted while streaming · 7 tokens generated (estimated), 5 delivered · 93 of the tokens asked for saved · "
                + "stopped after 2.0 ms · acknowledged after 1.0 ms")
        #expect(receipt.json["receipt"]?["saved_tokens"] == 93 && receipt.json["receipt"]?["delivered_tokens"] == 5)
        #expect(end.last == .prompt)
    }

    @Test func `the receipt waits for a late acknowledgement`() {
        var chat = Driver()
        _ = chat.register()
        _ = chat(.line("long"))
        _ = chat(.interrupt)
        #expect(chat.close() == [.endOfAnswer])
        let end = chat.message("INTERRUPT_ACK", ["status": "FAILED"])
        #expect(end.count == 2)
        #expect(end.last == .prompt)
    }

    @Test func `Ctrl-C at the prompt or a second Ctrl-C leaves`() {
        var idle = Driver()
        _ = idle.register()
        #expect(idle(.interrupt).last == .leave(.done, ""))
        var busy = Driver()
        _ = busy.register()
        _ = busy(.line("long"))
        _ = busy(.interrupt)
        #expect(busy(.interrupt).last == .leave(.done, ""))
    }

    @Test func `a lost connection is resumed from the last event`() {
        var chat = Driver(prompt: "x")
        _ = chat.register()
        _ = chat.text("a", event: "1-5")
        #expect(chat(.closed(code: nil, reason: "broke")) == [.connect])
        #expect(payload(chat(.connected), "REGISTER")?["resume_session_id"] == "s")
        #expect(payload(chat.message("REGISTER_ACK", ["session_id": "s"]), "RESUME") == ["request_id": "run-1", "last_event_id": "1-5"])
        #expect(chat.text("b", event: "1-6") == [.answer("b")])
        #expect(chat.close().last == .leave(.done, ""))
    }

    @Test func `a request that did not arrive is sent again`() {
        var chat = Driver(prompt: "x")
        _ = chat.register()
        _ = chat(.closed(code: 1001, reason: "draining"))
        _ = chat.register()
        let actions = chat.message("ERROR", ["error_code": "SESSION_INVALID", "error_msg": "unknown request", "request_id": "run-1"])
        #expect(payload(actions, "REQUEST")?["request_id"] == "run-1")
    }

    @Test func `an expired session is replaced`() {
        var chat = Driver()
        _ = chat.register()
        _ = chat(.closed(code: nil, reason: ""))
        _ = chat(.connected)
        let actions = chat.message("ERROR", ["error_code": "SESSION_INVALID", "error_msg": "unknown session"])
        #expect(payload(actions, "REGISTER")?["resume_session_id"] == nil)
        #expect(chat.message("REGISTER_ACK", ["session_id": "t"]) == [.prompt])
    }

    @Test func `errors end a request and the client leaves with status 1`() {
        var single = Driver(prompt: "x")
        _ = single.register()
        let error: JSON = ["error_code": "UPSTREAM_ERROR", "error_msg": "no", "error_detail": "model_not_found", "request_id": "run-1"]
        #expect(single.message("ERROR", error) == [.leave(.failed, "sluice: UPSTREAM_ERROR (model_not_found): no")])
        var chat = Driver()
        _ = chat.register()
        _ = chat(.line("x"))
        #expect(chat.message("ERROR", error) == [.note("UPSTREAM_ERROR (model_not_found): no"), .prompt])
        #expect(chat(.endOfInput).last == .leave(.failed, ""))
    }

    @Test func `a rejected registration ends the client`() {
        var chat = Driver()
        _ = chat(.connected)
        #expect(
            chat.message("ERROR", ["error_code": "AUTH_FAILED", "error_msg": "unknown key"])
                == [.leave(.failed, "sluice: the gateway rejected the registration: AUTH_FAILED: unknown key")])
        var closed = Driver()
        _ = closed.register()
        #expect(
            closed(.closed(code: 4401, reason: "expired")) == [.leave(.failed, "sluice: the gateway closed the connection (4401, expired)")]
        )
    }

    @Test func `heartbeats are answered`() {
        var chat = Driver()
        _ = chat.register()
        #expect(sent(chat.message("HEARTBEAT", ["remaining_seconds": 9])) == ["HEARTBEAT_REPLY"])
    }

    @Test func `frames of other requests are ignored`() {
        var chat = Driver()
        _ = chat.register()
        _ = chat(.line("x"))
        #expect(chat.text("old", request: "run-0") == [])
    }

    @Test(arguments: [
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/ws/agent/stream"), ("ws://h/x?y", "ws://h:80/x?y"),
        ("wss://h", "wss://h:443/ws/agent/stream"),
        ("http://h:1/", "ws://h:1/ws/agent/stream"), ("ws://[::1]:9", "ws://[::1]:9/ws/agent/stream"),
        ("ws://[::1]", "ws://[::1]:80/ws/agent/stream"),
    ])
    func `addresses are parsed`(text: String, meant: String) {
        #expect(ChatAddress(text)?.description == meant)
    }

    @Test(arguments: ["", "h:80", "ftp://h", "ws://", "ws://h:x", "ws://u@h", "ws://h:0", "ws://a b"])
    func `invalid addresses are rejected`(text: String) {
        #expect(ChatAddress(text) == nil)
    }

    @Test func `control characters of a model's output are removed`() {
        #expect(Terminal.printable("a\u{1B}[2Jb\r\nc\td\u{9B}", keepingLines: true) == "a\u{FFFD}[2Jb\nc\td\u{FFFD}")
        #expect(Terminal.printable("a\nb") == "a b")
        let hidden = "a\u{202A}\u{202B}\u{202D}\u{202E}b\u{2066}\u{2067}\u{2068}\u{2069}c\u{200E}\u{200F}\u{202C}\u{61C}d"
        #expect(Terminal.printable(hidden) == "abcd" && Terminal.printable(hidden, keepingLines: true) == "abcd")
        #expect(Terminal.printable("a\u{2028}b\u{9D}8;;x\u{9C}") == "a b 8;;x ")
        // The escapes of --json preserve the value.
        let json: JSON = ["m": .string("a\u{1B}\u{9B}\u{202E}\u{7F}é👩‍👩‍👧\n")]
        let written = StandardOutput.escaped(json.text)
        #expect(written == #"{"m":"a\u001b\u009b\u202e\u007fé👩‍👩‍👧\n"}"# && (try? JSON(parsing: written)) == json)
    }
}
