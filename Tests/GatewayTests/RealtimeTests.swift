import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import NIOWebSocket
import RedisClient
import Support
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// The Realtime API of a gateway. The test acts as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct RealtimeTests {
    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

    private func connect(
        _ gateway: WebSocketLab.Gateway, path: String = "/v1/realtime?model=m",
        headers: [String: String] = ["authorization": "Bearer tenant-a-test-key", "openai-beta": "realtime=v1"]
    ) async throws -> WebSocketClient {
        let client = try await WebSocketClient.connect(port: gateway.port, path: path, headers: headers)
        let created = try await client.expect("session.created")
        #expect(created.payload["session"]?["id"]?.string?.hasPrefix("sess_") == true)
        return client
    }

    /// The answer to an upgrade that is refused.
    private func upgradeAnswer(_ gateway: WebSocketLab.Gateway, _ credential: String?) async throws -> String {
        let connection = try await RawHTTPConnection(gateway.port)
        let authorization = credential.map { "Authorization: Bearer \($0)\r\n" } ?? ""
        try await connection.send(
            "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\(authorization)\r\n")
        return try await connection.end()
    }

    private func say(_ client: WebSocketClient, _ text: String) async throws {
        try await client.send(
            text:
                #"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"\#(text)"}]}}"#
        )
    }

    private func textOnly(_ client: WebSocketClient, _ more: String = "") async throws {
        try await client.send(text: #"{"type":"session.update","session":{"type":"realtime","output_modalities":["text"]\#(more)}}"#)
        try await client.expect("session.updated")
    }

    private func create(_ client: WebSocketClient) async throws { try await client.send(text: #"{"type":"response.create"}"#) }

    private func done(_ client: WebSocketClient) async throws -> JSON {
        try #require(try await client.expect("response.done").payload["response"])
    }

    private func messages(_ job: PlayedJob) -> String { job.job.request["messages"]?.text ?? "" }

    @Test func `a conversation in text with a function call`() async throws {
        try await withWebSocketLab { lab in
            let client = try await connect(try await lab.gateway())
            try await textOnly(
                client, #","instructions":"Be brief.","tools":[{"type":"function","name":"clock","parameters":{"type":"object"}}]"#)
            try await say(client, "What time is it?")
            try await create(client)
            let job = try await lab.claim()
            #expect(job.job.speech == nil && job.job.owner == "tenant-a" && job.job.request["model"] == "m")
            #expect(messages(job) == #"[{"role":"system","content":"Be brief."},{"role":"user","content":"What time is it?"}]"#)
            #expect(job.job.request["tools"]?[0]?["function"]?["name"] == "clock")
            try await job.write(
                .upstream(name: "u", model: "m"), .toolCall(ToolCall(index: 0, callID: "c1", name: "clock", arguments: "{}")))
            try await job.end(.finished(.toolCalls, Self.usage))
            let first = try await done(client)
            #expect(first["status"] == "completed" && first["output"]?[0]?["call_id"] == "c1")
            try await client.send(
                text: #"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"c1","output":"noon"}}"#)
            try await create(client)
            let second = try await lab.claim()
            #expect(second.job.request["messages"]?[3]?["tool_call_id"] == "c1" && second.job.request["messages"]?[3]?["content"] == "noon")
            try await second.write(.text("It is "), .text("noon."))
            try await second.end(.finished(.stop, Self.usage))
            #expect(try await done(client)["output"]?[0]?["content"]?[0]?["text"] == "It is noon.")
            // The answer is part of the conversation, until it is deleted.
            let item = try await client.expect("conversation.item.done") { $0["item"]?["role"] == "assistant" }
            let id = try #require(item.payload["item"]?["id"]?.string)
            try await client.send(text: #"{"type":"conversation.item.retrieve","item_id":"\#(id)"}"#)
            #expect(
                try await client.expect("conversation.item.retrieved").payload["item"]?["content"]?[0]?["text"] == "It is noon.")
            try await client.send(text: #"{"type":"conversation.item.delete","item_id":"\#(id)"}"#)
            try await client.expect("conversation.item.deleted")
            try await create(client)
            #expect(!messages(try await lab.claim()).contains("It is noon."))
            await client.close()
        }
    }

    @Test func `a response is cancelled in every order`() async throws {
        try await withWebSocketLab { lab in
            let client = try await connect(try await lab.gateway())
            try await textOnly(client)
            func cancelled(_ client: WebSocketClient) async throws {
                let response = try await done(client)
                #expect(response["status"] == "cancelled" && response["status_details"]?["reason"] == "client_cancelled")
            }
            func error(_ code: String) async throws {
                #expect(try await client.expect("error").payload["error"]?["code"]?.string == code)
            }
            // Nothing runs.
            try await client.send(text: #"{"type":"response.cancel","event_id":"mine"}"#)
            let nothing = try await client.expect("error").payload
            #expect(nothing["error"]?["code"] == "response_cancel_not_active" && nothing["error"]?["event_id"] == "mine")
            // In one segment: before the submission of the job, twice, and followed by another response.
            try await say(client, "hi")
            try await client.send(
                together: ["create", "cancel", "cancel", "create"].map {
                    (.text, ByteBuffer(string: #"{"type":"response.\#($0)"}"#))
                })
            try await error("response_cancel_not_active")
            try await cancelled(client)
            let second = try await lab.claim()
            try await second.write(.text("one "), .text("two"))
            try await client.expect("response.output_text.delta")
            // While another one runs.
            try await create(client)
            try await error("conversation_already_has_active_response")
            // By its id, with one that waits and is cancelled, and one that follows.
            let id = "resp_\(second.job.id)"
            try await client.send(
                together: [
                    #"{"type":"response.cancel","response_id":"\#(id)"}"#, #"{"type":"response.cancel","response_id":"\#(id)"}"#,
                    #"{"type":"response.create"}"#, #"{"type":"response.cancel"}"#, #"{"type":"response.create"}"#,
                ].map { (.text, ByteBuffer(string: $0)) })
            try await error("response_cancel_not_active")
            try await until("the interrupt") {
                try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(second.job.id))).string?.contains("USER_STOP")
            }
            // Output that crosses the cancellation is not delivered.
            try await second.write(.text("three"))
            try await second.end(.interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: Self.usage)))
            let response = try await done(client)
            #expect(response["id"]?.string == id && response["output"]?[0]?["content"]?[0]?["text"] == "one two")
            #expect(response["output"]?[0]?["status"] == "incomplete")
            try await cancelled(client)
            let third = try await lab.claim()
            #expect(messages(third).contains("one two"))
            try await third.end(.finished(.stop, Self.usage))
            #expect(try await done(client)["status"] == "completed")
            await client.close()
        }
    }

    @Test func `speech is found, interrupts the answer, and becomes the next turn`() async throws {
        try await withWebSocketLab { lab in
            let client = try await connect(try await lab.gateway { $0.recognizes = true })
            try await client.send(
                text: #"{"type":"session.update","session":{"audio":{"input":{"transcription":{"model":"whisper-1","language":"en"}}}}}"#)
            try await client.expect("session.updated")
            func append(_ milliseconds: Int, _ amplitude: Double) async throws {
                let audio = Base64.encode(RealtimeInputTests.audio(milliseconds: milliseconds, amplitude: amplitude))
                try await client.send(text: #"{"type":"input_audio_buffer.append","audio":"\#(audio)"}"#)
            }
            try await append(500, 0)
            try await append(600, 6_000)
            let started = try await client.expect("input_audio_buffer.speech_started").payload
            try await append(600, 0)
            try await client.expect("input_audio_buffer.speech_stopped") { $0["item_id"] == started["item_id"] }
            try await client.expect("input_audio_buffer.committed") { $0["item_id"] == started["item_id"] }
            let job = try await lab.claim()
            #expect(job.job.recognition == Job.Recognition(language: "en") && job.job.speech != nil)
            let stored = try await lab.queue.redis.send("GET", .string(lab.queue.keys.audio(job.job.id))).bytes?.readableBytes ?? 0
            #expect(stored > 1_000 * 32 && stored < 1_700 * 32, "16 kHz, with the padding")
            try await job.write(.transcript("Tell me a story."), .text("Once upon a time. "), .text("Then."))
            let transcript = try await client.expect("conversation.item.input_audio_transcription.completed").payload
            #expect(transcript["transcript"] == "Tell me a story." && transcript["item_id"] == started["item_id"])
            let samples = Base64.encode([UInt8](repeating: 0, count: 48_000))
            try await job.write(.audio(Audio(index: 0, format: "pcm", data: samples, last: false, textOffset: 0, textEnd: 18)))
            let delta = try await client.expect("response.output_audio.delta").payload
            #expect(delta["delta"]?.string == samples)
            // The user speaks again.
            try await append(600, 6_000)
            try await client.expect("input_audio_buffer.speech_started")
            let key = lab.queue.keys.interrupt(job.job.id)
            try await until("the interrupt") { try await lab.queue.redis.send("GET", .string(key)).string?.contains("USER_VOICE_INPUT") }
            let item = try #require(delta["item_id"]?.string)
            try await client.send(
                text: #"{"type":"conversation.item.truncate","item_id":"\#(item)","content_index":0,"audio_end_ms":500}"#)
            try await client.expect("conversation.item.truncated")
            try await append(600, 0)
            try await client.expect("input_audio_buffer.committed")
            try await job.end(.interrupted(Interruption(reason: "USER_VOICE_INPUT", phase: .speaking, usage: Self.usage)))
            let response = try await done(client)
            #expect(response["status_details"]?["reason"] == "turn_detected")
            let next = try await lab.claim()
            let history = messages(next)
            #expect(history.contains("Tell me a story.") && history.contains("Once") && !history.contains("time."), "\(history)")
            #expect(next.job.request["messages"]?.array?.last == ["role": "user", "content": ""])
            try await next.end(.finished(.noSpeech, Self.usage))
            #expect(try await done(client)["status"] == "completed")
            await client.close()
        }
    }

    @Test func `audio is committed, cleared and refused`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.recognizes = true
                $0.audioMaximum = 64_000
            }
            let client = try await connect(gateway)
            func send(_ event: String) async throws { try await client.send(text: event) }
            func error(_ event: String, _ code: String) async throws {
                try await send(event)
                let error = try await client.expect("error").payload["error"]
                #expect(error?["code"]?.string == code, "\(event.prefix(100)): \(error?.text ?? "")")
            }
            try await send(#"{"type":"session.update","session":{"audio":{"input":{"turn_detection":null}}}}"#)
            try await client.expect("session.updated")
            let second = Base64.encode(RealtimeInputTests.audio(milliseconds: 1_000, amplitude: 6_000))
            try await error(#"{"type":"input_audio_buffer.commit"}"#, "input_audio_buffer_commit_empty")
            try await error(#"{"type":"input_audio_buffer.append","audio":"*"}"#, "invalid_value")
            try await error(#"{"type":"input_audio_buffer.append"}"#, "missing_required_parameter")
            try await send(#"{"type":"input_audio_buffer.append","audio":"\#(second)"}"#)
            try await send(#"{"type":"input_audio_buffer.append","audio":"\#(second)"}"#)
            try await error(#"{"type":"input_audio_buffer.append","audio":"\#(second)"}"#, "input_audio_buffer_full")
            try await send(#"{"type":"input_audio_buffer.clear"}"#)
            try await client.expect("input_audio_buffer.cleared")
            try await error(#"{"type":"input_audio_buffer.commit"}"#, "input_audio_buffer_commit_empty")
            try await send(#"{"type":"input_audio_buffer.append","audio":"\#(second)"}"#)
            try await send(#"{"type":"input_audio_buffer.commit"}"#)
            try await client.expect("input_audio_buffer.committed")
            try await create(client)
            #expect(try await lab.claim().job.recognition != nil)
            try await error("nonsense", "invalid_json")
            try await error(#"{"type":"surprise"}"#, "unknown_event")
            try await error(#"{"type":"conversation.item.delete","item_id":"none"}"#, "item_not_found")
            try await error(
                #"{"type":"conversation.item.create","item":{"type":"function_call_output","call_id":"none","output":""}}"#,
                "invalid_tool_call_id")
            try await error(#"{"type":"session.update","session":{"prompt":{"id":"x"}}}"#, "unsupported_parameter")
            await client.close()
            let deaf = try await connect(try await lab.gateway("g2"))
            try await deaf.send(text: #"{"type":"input_audio_buffer.append","audio":"AAAA"}"#)
            #expect(try await deaf.expect("error").payload["error"]?["code"] == "audio_not_supported")
            await deaf.close()
        }
    }

    @Test func `a response beside the conversation, failures and the end of the connection`() async throws {
        try await withWebSocketLab { lab in
            let client = try await connect(try await lab.gateway())
            try await textOnly(client)
            try await say(client, "hi")
            try await create(client)
            let job = try await lab.claim()
            try await client.send(
                text:
                    #"{"type":"response.create","response":{"conversation":"none","metadata":{"topic":"x"},"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"aside"}]}]}}"#
            )
            let aside = try await lab.claim()
            #expect(messages(aside) == #"[{"role":"user","content":"aside"}]"#)
            try await aside.write(.text("beside"))
            try await aside.end(.finished(.stop, Self.usage))
            let response = try await done(client)
            #expect(response["metadata"]?["topic"] == "x" && response["conversation_id"] == .null)
            try await job.end(.failed(Failure(.upstreamError, "out of order"), Self.usage))
            let failed = try await done(client)
            #expect(failed["status"] == "failed" && failed["status_details"]?["error"]?["code"] == "upstream_error")
            try await create(client)
            let last = try await lab.claim()
            #expect(!messages(last).contains("beside"))
            await client.abort()
            let key = lab.queue.keys.interrupt(last.job.id)
            try await until("the interrupt") { try await lab.queue.redis.send("GET", .string(key)).string?.contains("CLIENT_GONE") }
        }
    }

    @Test func `an event with an unknown member has no effect`() async throws {
        try await withWebSocketLab { lab in
            let client = try await connect(try await lab.gateway())
            try await textOnly(client)
            try await say(client, "hi")
            let id = try #require(try await client.expect("conversation.item.done").payload["item"]?["id"]?.string)
            for event in [
                #""conversation.item.delete","item_id":"\#(id)""#, #""response.create""#, #""response.create","response":{"invented":1}"#,
                #""session.update","session":{"instructions":"x"}"#, #""session.update","session":{"instructions":"x","invented":1}"#,
                #""conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"x"}]}"#,
            ] {
                let nested = event.contains("invented")
                try await client.send(text: "{\"type\":\(event)\(nested ? "" : ",\"invented\":1")}")
                let error = try await client.expect("error").payload["error"]
                #expect(error?["message"]?.string?.contains("invented\"") == true, "\(event)")
            }
            // The item is there, no response runs, and the session is as it was.
            try await create(client)
            let job = try await lab.claim()
            #expect(messages(job) == #"[{"role":"user","content":"hi"}]"#)
            try await job.end(.finished(.stop, Self.usage))
            #expect(try await done(client)["id"] == .string("resp_\(job.job.id)"))
            await client.close()
        }
    }

    @Test func `only known credentials open a session, which has a maximum duration`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.sessionTimeout = .seconds(1) }
            for credential in [nil, "wrong", "ek_0_" + String(repeating: "0", count: 32)] {
                let answer = try await upgradeAnswer(gateway, credential)
                #expect(answer.hasPrefix("HTTP/1.1 401") && answer.contains("invalid_api_key"), "\(answer)")
            }
            let client = try await connect(
                gateway, path: "/v1/realtime", headers: ["sec-websocket-protocol": "realtime, openai-insecure-api-key.tenant-b-test-key"])
            #expect(try await client.expect("error").payload["error"]?["code"] == "session_expired")
            #expect(try await client.closed() == 1_000)
        }
    }

    @Test func `a client secret grants its tenant's session until it expires`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            func secret(_ body: String) async throws -> HTTPAnswer {
                try await HTTPCall.send(
                    .POST, gateway.port, "/v1/realtime/client_secrets", headers: ["authorization": "Bearer tenant-b-test-key"], body: body)
            }
            let answer = try await secret(
                #"{"expires_after":{"anchor":"created_at","seconds":60},"session":{"type":"realtime","model":"chosen","instructions":"Be kind.","output_modalities":["text"]}}"#
            )
            let value = try #require(answer.json?["value"]?.string)
            #expect(value.hasPrefix("ek_") && answer.json?["session"]?["model"] == "chosen")
            #expect(try await secret(#"{"expires_after":{"seconds":9}}"#).status == 400)
            #expect(try await secret(#"{"session":{"type":"transcription"}}"#).status == 400)
            // Only its digest is stored, and it opens nothing but a session.
            let keys = try await PrivateRedis.current.command("KEYS", "*secret:*").array ?? []
            #expect(keys.count == 1 && keys.first?.string?.contains(value) == false)
            #expect(
                try await HTTPCall.get(gateway.port, "/v1/models", headers: ["authorization": "Bearer \(value)"]).status == 401)
            // SDKs always send the parameter.
            let client = try await connect(gateway, path: "/v1/realtime?model=other", headers: ["authorization": "Bearer \(value)"])
            try await say(client, "hi")
            try await create(client)
            let job = try await lab.claim()
            #expect(job.job.owner == "tenant-b" && job.job.request["model"] == "chosen" && messages(job).contains("Be kind."))
            await client.close()
            _ = try await PrivateRedis.current.command("DEL", keys.first?.string ?? "")
            #expect(try await upgradeAnswer(gateway, value).hasPrefix("HTTP/1.1 401"))
        }
    }
}
