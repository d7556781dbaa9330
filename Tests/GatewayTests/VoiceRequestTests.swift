import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import RedisClient
import Support
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// VOICE requests as clients send them. The test acts as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct VoiceRequestTests {
    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
    private static let audio = Array("say:what time is it".utf8)

    private static func piece(_ sequence: Int?, _ audio: [UInt8]?, mode: JSON = "BASE64", format: JSON = .null) -> [(String, JSON)] {
        var content = JSONObject()
        content["voice_mode"] = mode
        content["voice"] = audio.map { .string(Base64.encode($0)) }
        content["audio_format"] = format
        return [
            ("data_type", "VOICE"), ("stream_flag", .bool(sequence != nil)), ("stream_seq", .integer(sequence ?? 0)),
            ("content", .object(content)),
        ]
    }

    private static func storedAudio(_ lab: WebSocketLab, _ job: PlayedJob) async throws -> [UInt8]? {
        try await JobConsumer(redis: lab.queue.redis, blocking: lab.queue.redis, settings: lab.queue.settings, worker: "x", token: "x")
            .audio(of: job.job.id)
    }

    /// Answers the next job, whose audio must be `Self.audio`.
    private static func answer(_ lab: WebSocketLab, format: String = "pcm") async throws {
        let job = try await lab.claim()
        #expect(job.job.recognition == Job.Recognition(format: format) && job.job.retrieval == nil)
        #expect(job.job.request["messages"]?.array?.last == ["role": "user", "content": ""], "the audio is not in the queue entry")
        #expect(try await storedAudio(lab, job) == audio)
        try await job.write(.transcript("What time is it?"), .upstream(name: "u", model: "m"), .text("Noon."))
        try await job.end(.finished(.stop, usage))
        #expect(try await storedAudio(lab, job) == nil, "the audio is deleted at the end")
    }

    @Test func `the three forms of a VOICE request`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.recognizes = true }
            let client = try await lab.client(gateway)
            let (first, second) = (Array(Self.audio.prefix(7)), Array(Self.audio.dropFirst(7)))
            // Whole.
            let whole = try await client.request(model: "m", fields: Self.piece(nil, Self.audio, format: "wav"))
            try await Self.answer(lab, format: "wav")
            let end = try await whole.ended()
            #expect(end.transcript == "What time is it?" && end.text == "Noon.")
            // Pieces in base64.
            let pieces = try await client.request(model: "m", fields: Self.piece(0, first))
            try await client.request(model: "m", id: pieces.id, fields: Self.piece(1, []))
            try await client.request(model: "m", id: pieces.id, fields: Self.piece(-1, second))
            try await Self.answer(lab)
            #expect(try await pieces.ended().text == "Noon.")
            // Binary frames.
            let binary = try await client.request(model: "m", fields: Self.piece(0, nil, mode: "BINARY"))
            try await client.send(.binary, ByteBuffer(bytes: first), final: false)
            try await client.send(.continuation, ByteBuffer(bytes: second))
            try await client.request(model: "m", id: binary.id, fields: Self.piece(-1, nil, mode: "BINARY"))
            // A client flushes its microphone.
            try await client.send(.binary, ByteBuffer(bytes: [1, 2, 3, 4]))
            try await Self.answer(lab)
            #expect(try await binary.ended().text == "Noon.")
            // What was said is in the history.
            try await client.request("next", model: "m")
            let next = try await lab.claim()
            #expect(next.job.request["messages"]?[0] == ["role": "user", "content": "What time is it?"])
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test func `errors of VOICE requests`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.recognizes = true
                $0.audioMaximum = 100
            }
            let client = try await lab.client(gateway)
            func error(_ request: ClientRequest, _ code: String) async throws {
                let payload = try await client.expect("ERROR").payload
                #expect(payload["error_code"]?.string == code && payload["request_id"]?.string == request.id, "\(payload.text)")
            }
            try await error(try await client.request(model: "m", fields: Self.piece(3, [1])), "STREAM_SEQ_ERROR")
            try await error(try await client.request(model: "m", fields: Self.piece(nil, nil)), "MALFORMED_PAYLOAD")
            try await error(try await client.request(model: "m", fields: Self.piece(nil, [1], format: "mp3")), "MALFORMED_PAYLOAD")
            try await error(
                try await client.request(model: "m", fields: Self.piece(nil, Array(repeating: 1, count: 101))), "PAYLOAD_TOO_LARGE")
            // A gap discards the request; its other pieces are ignored.
            let gap = try await client.request(model: "m", fields: Self.piece(0, [1]))
            try await client.request(model: "m", id: gap.id, fields: Self.piece(2, [1]))
            try await error(gap, "STREAM_SEQ_ERROR")
            try await client.request(model: "m", id: gap.id, fields: Self.piece(-1, [1]))
            // Too much in binary frames.
            let large = try await client.request(model: "m", fields: Self.piece(0, nil, mode: "BINARY"))
            try await client.send(.binary, ByteBuffer(repeating: 1, count: 60))
            try await client.send(.binary, ByteBuffer(repeating: 1, count: 60))
            try await error(large, "PAYLOAD_TOO_LARGE")
            // One open request.
            let open = try await client.request(model: "m", fields: Self.piece(0, nil, mode: "BINARY"))
            try await error(try await client.request(model: "m", fields: Self.piece(0, [1])), "STREAM_SEQ_ERROR")
            // An interrupt discards what has come in.
            let receipt = try await client.interrupt(nil, reason: "USER_STOP")
            #expect(receipt["status"] == "SUCCESS" && receipt["results"]?[0] == ["request_id": .string(open.id), "state": "queued"])
            let end = try await open.ended()
            #expect(end.end == .interrupted && end.last?["phase"] == "queued" && end.last?["interrupt_reason"] == "USER_STOP")
            try await client.request(model: "m", id: open.id, fields: Self.piece(-1, nil, mode: "BINARY"))
            try await client.send("SESSION_QUERY", ["query_fields": ["active_request_ids"]])
            #expect(try await client.expect("SESSION_INFO").payload["session_data"]?["active_request_ids"] == [])
            #expect(client.state.value.waiting.isEmpty, "\(client.state.value.waiting)")
            await client.close()
        }
    }

    @Test func `without recognition there are no VOICE requests`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.retrieves = true }
            let client = try await lab.client(gateway, [("enable_srs", true)])
            try await client.request(model: "m", fields: Self.piece(nil, [1]))
            #expect(try await client.expect("ERROR").payload["error_code"] == "UNSUPPORTED_DATA_TYPE")
            let request = try await client.request("where?", model: "m")
            #expect(try await lab.claim().job.retrieval == Job.Retrieval(query: "where?"))
            _ = request
            try await client.request("quiet", model: "m", fields: [("enable_srs", false)])
            #expect(try await lab.claim().job.retrieval == nil)
            await client.close()
        }
    }

    @Test func `a new utterance supersedes the running answer at its beginning`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.recognizes = true }
            let client = try await lab.client(gateway, [("auto_supersede", true)])
            try await client.request("tell me a story", model: "m")
            let job = try await lab.claim()
            try await client.request(model: "m", fields: Self.piece(0, nil, mode: "BINARY"))
            let key = lab.queue.keys.interrupt(job.job.id)
            let value = try await until("the interrupt") { try await lab.queue.redis.send("GET", .string(key)).string }
            #expect(value.contains("USER_NEW_INPUT"))
            await client.close()
        }
    }
}
