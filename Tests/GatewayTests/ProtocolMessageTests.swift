import Contract
import JSONCodec
import NIOCore
import Testing

@testable import Gateway

extension Envelope {
    init(parsing message: ByteBuffer, maximumDepth: Int) throws(ProtocolError) {
        var values = 0
        try self.init(parsing: message, maximumDepth: maximumDepth, values: &values)
    }
}

/// Decoding of client messages.
@Suite struct ProtocolMessageTests {
    private static func parse(_ text: String, depth: Int = 32) -> Result<Envelope, ProtocolError> {
        do { return .success(try Envelope(parsing: ByteBuffer(string: text), maximumDepth: depth)) } catch { return .failure(error) }
    }

    @Test func envelopes() throws {
        let good = try Self.parse(
            #"{"version":"1.0","msg_type":"HEALTH_CHECK","session_id":"s","payload":{"a":1},"timestamp":1.5e3,"x":1}"#
        ).get()
        #expect(good.kind == .healthCheck && good.sessionID == "s" && good.payload["a"] == 1)
        #expect(try Self.parse(#"{"version":"1.0","msg_type":"SHUTDOWN","payload":{},"timestamp":0}"#).get().sessionID == "")
        let bad = [
            "", "nonsense", "[]", "1", #"{"version":"1.0"}"#,
            #"{"version":"2.0","msg_type":"SHUTDOWN","payload":{},"timestamp":0}"#,
            #"{"version":1.0,"msg_type":"SHUTDOWN","payload":{},"timestamp":0}"#,
            #"{"version":"1.0","msg_type":"NOTHING","payload":{},"timestamp":0}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":{},"timestamp":"0"}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":{},"timestamp":true}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":[],"timestamp":0}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","timestamp":0}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":{},"timestamp":0,"session_id":7}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":{},"timestamp":0}}"#,
            #"{"version":"1.0","msg_type":"SHUTDOWN","payload":{"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},"timestamp":0}"#,
        ]
        for text in bad {
            guard case .failure(let error) = Self.parse(text) else {
                Issue.record("accepted: \(text)")
                continue
            }
            #expect(error.code == .malformedPayload && !error.message.isEmpty)
        }
        guard case .failure(let named) = Self.parse(#"{"version":"9","msg_type":"REQUEST","payload":{"request_id":"r"},"timestamp":0}"#)
        else {
            Issue.record("accepted")
            return
        }
        #expect(named.requestID == "r" && named.payload["request_id"] == "r" && named.payload["retryable"] == false)
    }

    private static func register(_ text: String) throws -> RegisterPayload {
        try RegisterPayload(try #require(try JSON(parsing: text).object))
    }

    @Test func registration() throws {
        let full = try Self.register(
            #"""
            {"auth":{"type":"JWT","token":"t"},"platform":"TV","require_tts":true,"enable_srs":true,"function_calling":[{"name":"f"}],
             "system_prompt":{"role_description":"R","response_requirements":"Q"},"scene_context":{"scene_description":"S"},"resume_session_id":"p0-x"}
            """#)
        #expect(full.settings.platform == .tv && full.settings.requiresSpeech && full.settings.enablesRetrieval)
        #expect(
            full.settings.systemMessage == "R\n\nQ\n\nS" && full.settings.functions.map(\.name) == ["f"] && full.resumedSession == "p0-x")
        guard case .jwt("t") = full.credential else {
            Issue.record("not the token")
            return
        }
        #expect(SessionSettings(stored: full.settings.json) == full.settings)
        for text in [
            "{}", #"{"auth":"x"}"#, #"{"auth":{"type":"API_KEY"}}"#, #"{"auth":{"type":"OTHER","api_key":"k"}}"#,
            #"{"auth":{"type":"API_KEY","api_key":"k"},"platform":"FRIDGE"}"#,
            #"{"auth":{"type":"API_KEY","api_key":"k"},"require_tts":"yes"}"#,
            #"{"auth":{"type":"API_KEY","api_key":"k"},"function_calling":{}}"#,
            #"{"auth":{"type":"API_KEY","api_key":"k"},"function_calling":[{"name":""}]}"#,
            #"{"auth":{"type":"ACCOUNT","account":"a"}}"#,
        ] {
            #expect(throws: ProtocolError.self, "\(text)") { try Self.register(text) }
        }
    }

    private static func request(_ text: String) throws -> RequestPayload {
        try RequestPayload(try #require(try JSON(parsing: text).object), recognizesSpeech: false)
    }

    @Test func requests() throws {
        let request = try Self.request(
            #"{"request_id":"r","data_type":"TEXT","content":{"text":"hi"},"supersede":true,"require_tts":true,"model":"m","stream_seq":7}"#
        )
        #expect(request.id == "r" && request.text == "hi" && request.supersedes == true && request.model == "m")
        #expect(try request.update.applied(to: SessionSettings()).requiresSpeech)
        let table: [(String, ErrorCode, String?)] = [
            ("{}", .malformedPayload, nil), (#"{"request_id":""}"#, .malformedPayload, nil),
            (#"{"request_id":"r"}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"VOICE","content":{}}"#, .unsupportedDataType, "r"),
            (#"{"request_id":"r","data_type":"TEXT"}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"TEXT","content":{"text":1}}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"TEXT","content":{"text":""},"model":1}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"TEXT","content":{"text":""},"function_calling_op":"MIX"}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"TEXT","content":{"text":""},"function_calling_op":"ADD"}"#, .malformedPayload, "r"),
            (#"{"request_id":"r","data_type":"TEXT","content":{"text":""},"update_session":[]}"#, .malformedPayload, "r"),
        ]
        for (text, code, id) in table {
            let error = try #require(throws: ProtocolError.self, "\(text)") { try Self.request(text) }
            #expect(error.code == code && error.requestID == id, "\(text)")
        }
    }

    @Test func `interrupts and resumes`() throws {
        func interrupt(_ text: String) throws -> InterruptPayload { try InterruptPayload(try #require(try JSON(parsing: text).object)) }
        for text in ["{}", #"{"interrupt_request_id":null}"#, #"{"interrupt_request_id":""}"#, #"{"interrupt_request_id":[]}"#] {
            #expect(try interrupt(text).ids == nil)
        }
        #expect(try interrupt("{}").reason == "USER_STOP")
        let two = try interrupt(#"{"interrupt_request_id":["a","b","a"],"reason":"USER_NEW_INPUT"}"#)
        #expect(two.ids == ["a", "b"] && two.reason == "USER_NEW_INPUT" && two.echo == ["a", "b", "a"])
        for text in [
            #"{"interrupt_request_id":7}"#, #"{"interrupt_request_id":["a",7]}"#, #"{"reason":"BE CAUSE"}"#, #"{"reason":"é"}"#,
            #"{"reason":""}"#, #"{"reason":7}"#,
        ] {
            #expect(throws: ProtocolError.self, "\(text)") { try interrupt(text) }
        }
        for reason in ["USER_VOICE_INPUT", "a", "0_.-Z", String(repeating: "r", count: 64)] {
            #expect(try interrupt("{\"reason\":\"\(reason)\"}").reason == reason)
        }
        func resume(_ text: String) throws -> ResumePayload { try ResumePayload(try #require(try JSON(parsing: text).object)) }
        #expect(try resume(#"{"request_id":"r","last_event_id":"2-7"}"#).after == EventID(attempt: 2, sequence: 7))
        #expect(try resume(#"{"request_id":"r","last_event_id":""}"#).after == nil)
        for text in ["{}", #"{"request_id":"r","last_event_id":"x"}"#, #"{"request_id":"r","last_event_id":1}"#] {
            #expect(throws: ProtocolError.self, "\(text)") { try resume(text) }
        }
    }
}

/// Session settings, history and the request bodies made from them.
@Suite struct SessionSettingsTests {
    private static func apply(_ text: String, to settings: SessionSettings) throws -> SessionSettings {
        try SessionUpdate(try #require(try JSON(parsing: text).object)).applied(to: settings)
    }

    @Test func `function operations`() throws {
        var settings = try Self.apply(#"{"function_calling":[{"name":"one"},{"name":"two"}]}"#, to: SessionSettings())
        func names() -> [String] { settings.functions.map(\.name) }
        settings = try Self.apply(#"{"function_calling_op":"ADD","function_calling":[{"name":"three"}]}"#, to: settings)
        #expect(names() == ["one", "two", "three"])
        settings = try Self.apply(
            #"{"function_calling_op":"UPDATE","function_calling":[{"name":"two","description":"new"}]}"#, to: settings)
        #expect(names() == ["one", "two", "three"] && settings.functions[1].source["description"] == "new")
        settings = try Self.apply(#"{"function_calling_op":"DELETE","function_calling":[{"name":"one"},{"name":"nobody"}]}"#, to: settings)
        #expect(names() == ["two", "three"])
        settings = try Self.apply(#"{"function_calling_op":"REPLACE","function_calling":[]}"#, to: settings)
        #expect(names() == [])
    }

    @Test func `session updates`() throws {
        let settings = try Self.apply(
            #"""
            {"update_session":{"systemPrompt":{"role_description":"R"},"sceneContext":"S","functionCalling":[{"name":"f"}],"requireTTS":true,
             "enableSRS":true,"reasoning":true}}
            """#, to: SessionSettings())
        #expect(settings.systemMessage == "R\n\nS" && settings.functions.count == 1)
        #expect(settings.requiresSpeech && settings.enablesRetrieval && settings.wantsReasoning)
        for text in [
            #"{"update_session":{"unknown":1}}"#, #"{"update_session":{"scene_context":{"unknown":1}}}"#,
            #"{"update_session":{"requireTTS":1}}"#, #"{"update_session":{"systemPrompt":1}}"#,
            #"{"update_session":{"functionCalling":1}}"#,
        ] {
            #expect(throws: ProtocolError.self) { try Self.apply(text, to: settings) }
        }
        let many = (0...FunctionDefinition.maximumCount).map { #"{"name":"f\#($0)"}"# }.joined(separator: ",")
        #expect(throws: ProtocolError.self) { try Self.apply("{\"function_calling\":[\(many)]}", to: settings) }
    }

    @Test func `tools in OpenAI's format`() throws {
        let schema = try JSON(
            parsing: #"{"name":"f","description":"d","parameters":{"type":"object","properties":{"x":{"type":"integer"}}}}"#)
        #expect(try FunctionDefinition(schema).tool == ["type": "function", "function": schema])
        let list = try JSON(
            parsing:
                #"{"name":"f","parameters":[{"name":"city","type":"string","description":"where"},{"name":"n","type":"int","required":true}]}"#
        )
        #expect(
            try FunctionDefinition(list).tool["function"]?["parameters"]?.text
                == #"{"type":"object","properties":{"city":{"description":"where","type":"string"},"n":{"type":"integer"}},"required":["n"]}"#
        )
        #expect(try FunctionDefinition(["name": "bare"]).tool == ["type": "function", "function": ["name": "bare"]])
    }

    @Test func `history is limited`() throws {
        var history = ChatHistory(maximumTurns: 3, maximumSize: 20)
        for number in 1...5 { history.append(user: "q\(number)", answer: number == 4 ? "" : "a\(number)") }
        #expect(history.turns.map(\.user) == ["q3", "q4", "q5"])
        #expect(history.messages.compactMap { $0["content"]?.string } == ["q3", "a3", "q4", "q5", "a5"])
        #expect(ChatHistory(stored: history.json, maximumTurns: 3, maximumSize: 20) == history)
        history.append(user: "0123456789", answer: "01234")
        #expect(history.turns.map(\.user) == ["q5", "0123456789"], "the oldest turns are removed until the bytes fit")
        history.append(user: "x", answer: String(repeating: "y", count: 30))
        #expect(history.turns.isEmpty, "a single turn above the limit is not stored")
        var none = ChatHistory(maximumTurns: 0, maximumSize: 20)
        none.append(user: "x", answer: "y")
        #expect(none.turns.isEmpty)
    }

    @Test func `request bodies`() throws {
        var history = ChatHistory(maximumTurns: 20, maximumSize: 1_000)
        let plain = GenerationRequest.body(settings: SessionSettings(), history: history, text: "hi", model: nil)
        #expect(JSON.object(plain).text == #"{"messages":[{"role":"user","content":"hi"}]}"#)
        history.append(user: "one", answer: "first")
        let settings = try Self.apply(
            #"{"function_calling":[{"name":"f"}],"update_session":{"systemPrompt":"R"}}"#, to: SessionSettings())
        let full = GenerationRequest.body(settings: settings, history: history, text: "two", model: "m")
        #expect(full["model"] == "m" && full["tools"]?.array?.count == 1)
        #expect(full["messages"]?.array?.map { $0["role"]?.string ?? "" } == ["system", "user", "assistant", "user"])
    }
}
