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

    @Test func `an utterance ends with its socket`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.recognizes = true }
            let client = try await lab.client(gateway)
            // A finished request, so that the session is kept.
            let first = try await client.request("hello", model: "m")
            try await lab.claim().end(.finished(.stop, Self.usage))
            _ = try await first.ended()
            let session = client.state.value.session
            let lost = try await client.request(model: "m", fields: Self.piece(0, nil, mode: "BINARY"))
            try await client.send(.binary, ByteBuffer(bytes: Array("say:wrong".utf8)))
            // The session continues on another socket; nothing of the utterance was submitted.
            let second = try await lab.client(gateway, [("resume_session_id", .string(session))])
            #expect(try await client.closed() == 1001)
            try await second.send("RESUME", ["request_id": .string(lost.id)])
            let error = try await second.expect("ERROR").payload
            #expect(error["error_code"] == "SESSION_INVALID" && error["request_id"]?.string == lost.id)
            // Its last message does not complete it, and the client may use its id again.
            try await second.request(model: "m", id: lost.id, fields: Self.piece(-1, nil, mode: "BINARY"))
            #expect(try await second.expect("ERROR").payload["error_code"] == "STREAM_SEQ_ERROR")
            await second.abort()
            let third = try await lab.client(gateway, [("resume_session_id", .string(session))])
            let again = try await third.request(model: "m", id: lost.id, fields: Self.piece(nil, Self.audio))
            try await Self.answer(lab)
            #expect(try await again.ended().text == "Noon.")
            await third.close()
        }
    }

    @Test func `each socket has its own utterance`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.recognizes = true }
            let clients = [try await lab.client(gateway), try await lab.client(gateway)]
            var requests: [ClientRequest] = []
            for (index, client) in clients.enumerated() {
                requests.append(try await client.request(model: "m\(index)", fields: Self.piece(0, nil, mode: "BINARY")))
            }
            for letter in 0..<3 {
                for (index, client) in clients.enumerated() {
                    try await client.send(.binary, ByteBuffer(bytes: [UInt8(index), UInt8(letter)]))
                }
            }
            for (index, client) in clients.enumerated().reversed() {
                try await client.request(model: "m\(index)", id: requests[index].id, fields: Self.piece(-1, nil, mode: "BINARY"))
            }
            for _ in 0..<2 {
                let job = try await lab.claim()
                let index: UInt8 = job.job.request["model"] == "m0" ? 0 : 1
                #expect(try await Self.storedAudio(lab, job) == [index, 0, index, 1, index, 2])
                try await job.end(.finished(.noSpeech, Self.usage))
            }
            for request in requests { #expect(try await request.ended().last?["finish_reason"] == "no_speech") }
            for client in clients { await client.close() }
        }
    }

    @Test func `a VOICE request is resumed on another gateway`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway("g1") { $0.recognizes = true }
            let client = try await lab.client(gateway)
            let request = try await client.request(model: "m", fields: Self.piece(nil, Self.audio))
            let job = try await lab.claim()
            try await job.write(.transcript("What time is it?"), .upstream(name: "u", model: "m"), .text("It is "))
            try await until("the first text") { request.text == "It is " }
            await client.abort()
            let other = try await lab.client(
                try await lab.gateway("g2") { $0.recognizes = true }, [("resume_session_id", .string(client.state.value.session))])
            // A client that lost all it had asks from the beginning.
            other.state.update { $0.requests[request.id] = RequestChecker(id: request.id, model: nil) }
            try await other.send("RESUME", ["request_id": .string(request.id)])
            try await job.write(.text("noon."))
            try await job.end(.finished(.stop, Self.usage))
            let end = try await ClientRequest(id: request.id, client: other).ended()
            #expect(end.transcript == "What time is it?" && end.text == "It is noon.")
            try await other.request("thanks", model: "m")
            #expect(
                try await lab.claim().job.request["messages"]?.array?.prefix(2) == [
                    ["role": "user", "content": "What time is it?"], ["role": "assistant", "content": "It is noon."],
                ])
            await other.close()
        }
    }

    @Test func `the audio expires with its job`() async throws {
        try await withWebSocketLab { lab in
            let (redis, keys) = (lab.queue.redis, lab.queue.keys)
            func expiry(_ job: Job) async throws -> Int { try await redis.send("PTTL", .string(keys.audio(job.id))).integer ?? 0 }
            var job = Job(id: try #require(JobID("p0-a1")), priority: .interactive, request: JSONObject())
            try await lab.queue.storeAudio(Self.audio, of: job)
            #expect((500_000...600_000).contains(try await expiry(job)))
            job.deadlineMilliseconds = WallClock.milliseconds + 3_600_000
            try await lab.queue.storeAudio(Self.audio, of: job)
            #expect((3_500_000...3_600_000).contains(try await expiry(job)))
            // A job that is interrupted in the queue.
            let gateway = try await lab.gateway { $0.recognizes = true }
            let client = try await lab.client(gateway)
            let request = try await client.request(model: "m", fields: Self.piece(nil, Self.audio))
            try await until("the audio") {
                try await redis.send("KEYS", .string(keys.audio(job.id).replacing("p0-a1", with: "*"))).array?.count == 2
            }
            #expect(try await client.interrupt(.string(request.id))["status"] == "SUCCESS")
            #expect(try await request.ended().last?["phase"] == "queued")
            #expect(try await redis.send("KEYS", .string(keys.audio(job.id).replacing("p0-a1", with: "*"))).array?.count == 1)
            await client.close()
        }
    }
}
