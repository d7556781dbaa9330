import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// Every message that a client of protocol 1.0 may send, in each of its spellings, with the expected answer. The test acts as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct ProtocolConformanceTests {
    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

    /// Registers with `fields` and returns the client.
    private static func client(_ gateway: WebSocketLab.Gateway, _ fields: [(String, JSON)] = []) async throws -> WebSocketClient {
        let client = try await WebSocketClient.connect(port: gateway.port)
        try await client.register(key: "tenant-a-test-key", fields: fields)
        return client
    }

    private static func info(_ client: WebSocketClient, _ fields: JSON = []) async throws -> JSON {
        try await client.send("SESSION_QUERY", ["query_fields": fields])
        return try await client.expect("SESSION_INFO").payload["session_data"] ?? .null
    }

    /// Sends an update without a text. The SESSION_INFO that follows proves that it was handled.
    private static func update(_ client: WebSocketClient, _ fields: [(String, JSON)]) async throws -> JSON {
        try await client.request("", model: nil, fields: fields)
        return try await info(client)
    }

    /// The reason in the job's interrupt key; nil while there is none.
    private static func interruptReason(_ lab: WebSocketLab, _ id: JobID) async throws -> String? {
        let value = try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(id))).string
        return value.flatMap { Interrupt(parsing: $0.utf8)?.reason }
    }

    /// The system message of the next request.
    private static func system(_ client: WebSocketClient, _ lab: WebSocketLab) async throws -> String? {
        try await client.request("x", model: "m")
        let job = try await lab.claim()
        let message = job.job.request["messages"]?[0]
        try await job.end(.failed(Failure(.internal, "not needed"), usage))
        try await client.expect("ERROR")
        return message?["role"] == "system" ? message?["content"]?.string : nil
    }

    @Test func `REGISTER in every spelling`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.webSocketPaths = ["/ws/agent/stream", "/ws/voice"] }
            let client = try await WebSocketClient.connect(port: gateway.port, path: "/ws/voice?version=1")
            try await client.send("HEALTH_CHECK", [:])
            #expect(try await client.expect("HEALTH_CHECK_ACK").payload["health_status"]?["status"] == "HEALTHY", "before REGISTER")
            try await client.register(
                key: "tenant-a-test-key",
                fields: [
                    ("platform", .null), ("client_type", "MINI_PROGRAM"), ("require_tts", true), ("enable_srs", .null),
                    ("auto_supersede", false), ("voice_sample_rate", 48_000), ("system_prompt", ["role_description": "A"]),
                    ("scene_context", ["description": "B", "scene_specific_prompt": "C", "other": 1]),
                ])
            let info = try await Self.info(client)
            #expect(
                info["platform"] == "MINI_PROGRAM" && info["require_tts"] == true && info["enable_srs"] == true, "retrieval is the default")
            #expect(try await Self.system(client, lab) == "A\n\nB\n\nC")
            await client.close()
            for rate in [7_999, 48_001, "16000", .number("16000.5")] as [JSON] {
                let refused = try await WebSocketClient.connect(port: gateway.port)
                let auth: JSON = ["type": "API_KEY", "api_key": "tenant-a-test-key"]
                try await refused.send("REGISTER", ["auth": auth, "voice_sample_rate": rate])
                #expect(try await refused.expect("ERROR").payload["error_code"] == "MALFORMED_PAYLOAD", "\(rate)")
                await refused.close()
            }
            await #expect(throws: (any Error).self) { try await WebSocketClient.connect(port: gateway.port, path: "/ws/other") }
        }
    }

    @Test func `update_session in every spelling`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway)
            for (prompt, scene, functions, tts, srs) in [
                ("system_prompt", "scene_context", "function_calling", "require_tts", "enable_srs"),
                ("systemPrompt", "sceneContext", "functionCalling", "requireTTS", "enableSRS"),
            ] {
                var update = JSONObject()
                update[prompt] = ["role_description": .string("role \(prompt)"), "response_requirements": "short"]
                update[scene] = ["description": .string("scene \(scene)"), "scene_specific_prompt": "whisper"]
                update[functions] = [["name": .string(functions)]]
                update[tts] = true
                update[srs] = true
                let info = try await Self.update(client, [("update_session", .object(update))])
                #expect(
                    info["require_tts"] == true && info["enable_srs"] == true && info["function_calling"]?[0]?["name"]?.string == functions)
                #expect(try await Self.system(client, lab) == "role \(prompt)\n\nshort\n\nscene \(scene)\n\nwhisper")
                _ = try await Self.update(client, [("update_session", [:])])
                _ = try await Self.update(
                    client, [("update_session", .object(JSONObject([.init(name: scene, value: ["scene_description": "other"])])))])
                #expect(try await Self.system(client, lab) == "role \(prompt)\n\nshort\n\nother")
                // A request's own flags update the session too.
                let flags = try await Self.update(client, [("require_tts", false), ("enable_srs", false)])
                #expect(flags["require_tts"] == false && flags["enable_srs"] == false)
            }
            for (update, field): (JSON, String) in [
                (["require_tts": true, "volume": 1], "update_session.volume"),
                (["require_tts": true, "sceneContext": ["mood": "x"]], "scene_context.mood"),
            ] {
                let request = try await client.request("hello", model: nil, fields: [("update_session", update)])
                let error = try await client.expect("ERROR").payload
                #expect(error["error_code"] == "MALFORMED_PAYLOAD" && error["request_id"]?.string == request.id)
                #expect(error["error_msg"]?.string?.contains(field) == true, "\(error.text)")
                #expect(try await Self.info(client)["require_tts"] == false, "the rest is not applied")
            }
            await client.close()
        }
    }

    @Test func `a request turns the voice on for the session, which is closed only where there is a speech upstream`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway)
            /// Whether the closing frame closes the voice.
            func closes(_ fields: [(String, JSON)], audio: Bool = false) async throws -> Bool {
                let request = try await client.request("x", model: "m", fields: fields)
                let job = try await lab.claim()
                #expect(job.job.speech != nil, "the session has a voice")
                try await job.write(.upstream(name: "u", model: "m"), .text("answer"))
                if audio { try await job.write(.audio(Audio(index: 0, format: "pcm", data: "", last: true))) }
                try await job.end(.finished(.stop, Self.usage))
                return try await request.ended().last?["voice_stream_seq"] == -1
            }
            #expect(try await closes([("require_tts", true)]), "this request asked")
            #expect(try await Self.info(client)["require_tts"] == true)
            #expect(try await !closes([]))
            #expect(try await closes([], audio: true))
            #expect(try await closes([("require_tts", true)]))
            _ = try await Self.update(client, [("update_session", ["require_tts": true])])
            #expect(try await closes([]), "the session asks")
            _ = try await Self.update(client, [("require_tts", false)])
            #expect(try await Self.info(client)["require_tts"] == false)
            await client.close()
            let speaking = try await Self.client(gateway, [("require_tts", true)])
            let request = try await speaking.request("x", model: "m", fields: [("require_tts", true)])
            try await lab.claim().end(.finished(.stop, Self.usage))
            #expect(try await request.ended().last?["voice_stream_seq"] == -1)
            let next = try await speaking.request("y", model: "m")
            try await lab.claim().end(.finished(.stop, Self.usage))
            #expect(try await next.ended().last?["voice_stream_seq"] == -1, "REGISTER asked")
            await speaking.close()
        }
    }

    @Test func `no voice follows the acknowledgement of an interrupt`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway, [("require_tts", true)])
            let samples = Base64Samples.silence(milliseconds: 100)
            func audio(_ index: Int) -> GenerationEvent {
                .audio(Audio(index: index, format: "pcm", data: samples, last: false, textOffset: 0, textEnd: 5))
            }
            func speak() async throws -> (ClientRequest, PlayedJob) {
                let request = try await client.request("talk", model: "m")
                let job = try await lab.claim()
                try await job.write(.upstream(name: "u", model: "m"), .text("Hello"), audio(0))
                try await until("the voice") { request.checker.voiceFrames == 1 }
                return (request, job)
            }
            let (stopped, job) = try await speak()
            try await client.interrupt(.string(stopped.id))
            // What the worker sent before it received the interrupt.
            try await job.write(audio(1), .text(" world"))
            try await job.end(.interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: Self.usage)))
            var end = try await stopped.ended()
            #expect(end.voiceFrames == 1 && end.text == "Hello world" && end.last?["voice_stream_seq"] == -1)
            let (old, superseded) = try await speak()
            let new = try await client.request("stop it", model: "m", fields: [("supersede", true)])
            _ = try await lab.claim()
            try await superseded.write(audio(1))
            try await superseded.end(.finished(.stop, Self.usage))
            end = try await old.ended()
            #expect(end.voiceFrames == 1 && end.last?["voice_stream_seq"] == -1)
            #expect(new.checker.end == nil && client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test func `every new request supersedes the running ones`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway, [("auto_supersede", true)])
            let first = try await client.request("one", model: "m")
            let job = try await lab.claim()
            let second = try await client.request("two", model: "m")
            let interrupt = try await until("the interrupt") { try await Self.interruptReason(lab, job.job.id) }
            #expect(interrupt == "USER_NEW_INPUT")
            try await job.end(.interrupted(Interruption(reason: interrupt, phase: .streaming, usage: Self.usage)))
            #expect(try await first.ended().end == .interrupted)
            _ = try await Self.update(client, [("update_session", ["autoSupersede": false])])
            let third = try await client.request("three", model: "m")
            for _ in 0..<2 { try await lab.claim().end(.finished(.stop, Self.usage)) }
            let ends = [try await second.ended().end, try await third.ended().end]
            #expect(ends.contains(.finished))
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test(arguments: ["USER_NEW_INPUT", "USER_STOP", "CLIENT_ERROR", "USER_VOICE_INPUT", "my.own-reason_1"])
    func `INTERRUPT carries its reason through`(_ reason: String) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway)
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            #expect(try await client.interrupt(.string(request.id), reason: reason)["status"] == "SUCCESS")
            #expect(try await Self.interruptReason(lab, job.job.id) == reason)
            await client.close()
        }
    }

    @Test func `SHUTDOWN with a close frame behind it ends in 1000`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            for round in 0..<20 {
                let client = try await Self.client(gateway)
                let shutdown = WebSocketClient.envelope("SHUTDOWN", [:], session: client.state.value.session)
                try await client.send(together: [
                    (.text, ByteBuffer(string: shutdown)), (.connectionClose, ByteBuffer(bytes: [0x03, 0xE8])),
                ])
                #expect(try await client.closed() == 1000, "round \(round)")
                _ = try await client.expect("SHUTDOWN")
            }
        }
    }

    @Test func `binary frames outside a VOICE request are dropped where speech is recognized`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.recognizes = true }
            let client = try await Self.client(gateway)
            for _ in 0..<3 { try await client.send(.binary, ByteBuffer(repeating: 1, count: 3_200)) }
            try await client.send("HEARTBEAT_REPLY", [:])
            #expect(try await Self.info(client, ["platform"]) == ["platform": "WEB"], "the socket is open")
            await client.close()
        }
    }

    @Test func `function results`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway)
            let first = try await client.request("weather?", model: "m")
            let job = try await lab.claim()
            try await job.write(
                .upstream(name: "u", model: "m"),
                .toolCall(ToolCall(index: 0, callID: "a", name: "weather", arguments: #"{"city":"Bonn"}"#)),
                .toolCall(ToolCall(index: 1, callID: "b", name: "clock", arguments: "{}")))
            try await job.end(.finished(.toolCalls, Self.usage))
            #expect(try await first.ended().calls.map { $0["call_id"] ?? .null } == ["a", "b"])
            let results: JSON = [["call_id": "b", "result": ["time": 12]], ["call_id": "a", "result": "rain"]]
            let second = try await client.request("", model: "m", fields: [("function_results", results)])
            let next = try await lab.claim()
            let messages = next.job.request["messages"]?.array ?? []
            #expect(messages.map { $0["role"]?.string ?? "" } == ["user", "assistant", "tool", "tool"])
            #expect(messages.compactMap { $0["tool_call_id"]?.string } == ["a", "b"])
            #expect(messages.suffix(2).map { $0["content"]?.string ?? "" } == ["rain", #"{"time":12}"#])
            try await next.write(.upstream(name: "u", model: "m"), .text("It rains."))
            try await next.end(.finished(.stop, Self.usage))
            _ = try await second.ended()
            try await client.request("", model: "m", fields: [("function_results", [["call_id": "x", "result": 1]])])
            #expect(try await client.expect("ERROR").payload["error_code"] == "MALFORMED_PAYLOAD")
            try await client.request("thanks", model: "m")
            let last = try await lab.claim()
            #expect(
                last.job.request["messages"]?.array?.map { $0["role"]?.string ?? "" }
                    == ["user", "assistant", "tool", "tool", "assistant", "user"])
            await client.close()
        }
    }

    @Test func `PLAYED cuts the answer to what was heard`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await Self.client(gateway, [("require_tts", true), ("voice_sample_rate", 8_000)])
            let request = try await client.request("talk", model: "m")
            let job = try await lab.claim()
            let samples = Base64Samples.silence(milliseconds: 2_000)
            try await job.write(
                .upstream(name: "u", model: "m"), .text("One two three four. "), .text("Five six seven."),
                .audio(Audio(index: 0, format: "pcm", data: samples, last: false, textOffset: 0, textEnd: 20)),
                .audio(Audio(index: 1, format: "pcm", data: samples, last: false, textOffset: 20, textEnd: 35)),
                .audio(Audio(index: 2, format: "pcm", data: "", last: true)))
            try await client.send("PLAYED", ["request_id": .string(request.id), "ms": 100])
            try await client.interrupt(.string(request.id), reason: "USER_VOICE_INPUT", played: 1_100)
            try await job.end(.interrupted(Interruption(reason: "USER_VOICE_INPUT", phase: .speaking, usage: Self.usage)))
            let checker = try await request.ended()
            #expect(checker.voiceRates == [8_000], "the first voice frame states the rate")
            #expect(checker.voiceBytes == 2 * 8_000 * 4, "four seconds at 8 kHz")
            func heard() async throws -> JSON? {
                try await client.request("next", model: "m")
                let job = try await lab.claim()
                try await job.end(.failed(Failure(.internal, "not needed"), Self.usage))
                try await client.expect("ERROR")
                return job.job.request["messages"]?[1]?["content"]
            }
            #expect(try await heard() == "One two")
            try await client.send("PLAYED", ["request_id": .string(request.id), "ms": 2_000])
            #expect(try await heard() == "One two three four. ")
            try await client.send("PLAYED", ["request_id": .string(request.id), "ms": 0])
            #expect(try await heard() == "next", "the answer is removed")
            for (payload, code): (JSON, String) in [
                (["request_id": "nobody", "ms": 1], "SESSION_INVALID"), (["request_id": .string(request.id)], "MALFORMED_PAYLOAD"),
                (["request_id": .string(request.id), "ms": -1], "MALFORMED_PAYLOAD"),
            ] {
                try await client.send("PLAYED", payload)
                #expect(try await client.expect("ERROR").payload["error_code"]?.string == code)
            }
            await client.close()
        }
    }
}

/// Samples for tests.
enum Base64Samples {
    /// Silence at the rate of the speech upstreams.
    static func silence(milliseconds: Int) -> String {
        let bytes = milliseconds * Audio.sampleRate / 1_000 * 2
        return String(repeating: "A", count: (bytes + 2) / 3 * 4 - (3 - bytes % 3) % 3) + String(repeating: "=", count: (3 - bytes % 3) % 3)
    }
}
