import Contract
import Foundation
import JSONCodec
import NIOCore
import NIOWebSocket
import Support
import TestSupport
import Testing

extension Journeys {
    /// From the user's voice to the answer, with real processes: recognition, retrieval, model.
    @Suite struct VoiceConversationTests {
        private static func settings(_ lab: Lab, recognition: String = "asr", key: String? = nil, kind: String = "openai") -> [String:
            String?]
        {
            let base = "http://127.0.0.1:\(lab.simulator.port)"
            return [
                "SLUICE_RECOGNITION_KIND": kind, "SLUICE_RECOGNITION_URL": kind == "openai" ? "\(base)/v1" : "\(base)/api/v1",
                "SLUICE_RECOGNITION_MODEL": recognition, "SLUICE_RETRIEVAL_URL": base, "SLUICE_RETRIEVAL_KEY": key,
                "SLUICE_RETRIEVAL_TIMEOUT": "2s", "SLUICE_RETRIES": "1",
            ]
        }

        private static func voice(_ audio: [UInt8]) -> [(String, JSON)] {
            [
                ("data_type", "VOICE"), ("stream_flag", false), ("stream_seq", 0),
                ("content", ["voice_mode": "BASE64", "voice": .string(Base64.encode(audio))]),
            ]
        }

        private static let question = Array("say:Where is the station?".utf8)

        @Test(arguments: ["openai", "dashscope"]) func `the answer is about what was said and what was found`(_ kind: String) async throws {
            try await withLab { lab in
                let settings = Self.settings(lab, kind: kind)
                _ = try await lab.worker("w1", settings)
                let gateway = try await lab.gateway("g1", settings)
                let client = try await lab.client(gateway, fields: [("enable_srs", true)])
                let request = try await client.request(model: "chat-\(kind)", fields: Self.voice(Self.question))
                // The model's text states the beginning of the user message: the documents come before the transcript.
                try await until("an answer about the documents") { request.text.contains("“Document 1”") }
                try await client.interrupt(.string(request.id))
                let end = try await request.ended()
                #expect(end.end == .interrupted && end.transcript == "Where is the station?")
                // Silence asks no model.
                let silence = try await client.request(model: "silent", fields: Self.voice(Array(repeating: 0, count: 32_000))).ended()
                #expect(silence.last?["finish_reason"] == "no_speech" && silence.text.isEmpty && silence.transcript == nil)
                let asked = try await lab.upstream()
                #expect(asked.requests.count { $0.path.hasSuffix("/search/retrieve") } == 1, "\(asked.requests.map(\.path))")
                #expect(!asked.requests.contains { $0.model == "silent" })
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
        }

        /// The messages of each request to a canned model.
        private static func messages(_ upstream: CannedUpstream) throws -> [[JSON]] {
            try upstream.requests.map { request in
                let body = try #require(request.utf8.firstRange(of: "\r\n\r\n".utf8)).upperBound
                return try JSON(parsing: Array(request.utf8[body...]))["messages"]?.array ?? []
            }
        }

        @Test func `transcript, documents and what was heard reach the model's request`() async throws {
            let answer = "The station is two streets away from here. Turn left at the church and you will see it."
            let chunk: JSON = ["choices": [["index": 0, "delta": ["content": .string(answer)], "finish_reason": "stop"]]]
            let bytes =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: \(chunk.text)\n\ndata: [DONE]\n\n"
            let model = try await CannedUpstream.start([CannedUpstream.Answer(word: "include_usage", bytes: bytes)])
            try await withLab { lab in
                var settings = Self.settings(lab)
                settings["SLUICE_SPEECH_URL"] = lab.upstreamURL
                settings["SLUICE_SPEECH_MODEL"] = "sim-n50-g1-speech"
                settings["SLUICE_UPSTREAM_URL"] = model.url
                _ = try await lab.worker("w1", settings)
                let gateway = try await lab.gateway("g1", settings)
                let client = try await lab.client(gateway, fields: [("enable_srs", true), ("require_tts", true)])
                let request = try await client.request(model: "m", fields: Self.voice(Self.question))
                let end = try await request.ended()
                #expect(end.text == answer && end.transcript == "Where is the station?" && end.voiceFrames > 0)
                // Two sentences of two seconds each.
                try await client.send("PLAYED", ["request_id": .string(request.id), "ms": 1_000])
                let next = try await client.request("Is it far?", model: "m", fields: [("enable_srs", false)])
                try await next.ended()
                let asked = try Self.messages(model)
                #expect(asked.count == 2)
                let first = asked[0].last?["content"]?.string ?? ""
                #expect(first.hasPrefix("Document 1\n") && first.hasSuffix("\n\nWhere is the station?"), "\(first)")
                #expect(asked[1].map { $0["role"] } == ["user", "assistant", "user"])
                #expect(asked[1].first?["content"] == "Where is the station?", "the documents are not part of the conversation")
                let heard = asked[1][1]["content"]?.string ?? ""
                #expect(answer.hasPrefix(heard) && heard.hasPrefix("The station") && !heard.contains("here."), "\(heard)")
                #expect(asked[1].last?["content"] == "Is it far?")
                let story = try await Executable.run(
                    ["job", "show", request.job], environment: ["SLUICE_REDIS_URL": lab.redis.url], deadline: .seconds(60))
                #expect(story.output.contains("transcript") && story.output.contains("3 documents"), "\(story.output)\(story.errors)")
                for node in lab.nodes { #expect(!node.log.contains("Where is the station"), "\(node.name) logs what was said") }
            }
            await model.close()
        }

        @Test func `an interrupt closes the connections of recognition and retrieval`() async throws {
            try await withLab { lab in
                for (name, recognition, key, phase) in [
                    ("a", "sim-h0", nil, "recognizing"), ("b", "asr", "sim-h0", "retrieving"),
                ] as [(String, String, String?, String)] {
                    var settings = Self.settings(lab, recognition: recognition, key: key)
                    settings["SLUICE_RETRIEVAL_TIMEOUT"] = "60s"
                    settings["SLUICE_NAMESPACE"] = name
                    let worker = try await lab.worker("w-\(name)", settings)
                    let gateway = try await lab.gateway("g-\(name)", settings)
                    let client = try await lab.client(gateway, fields: [("enable_srs", true)])
                    let request = try await client.request(model: "m", fields: Self.voice(Self.question))
                    let path = phase == "recognizing" ? "/v1/audio/transcriptions" : "/search/retrieve"
                    try await until("the request to \(path)") { try await lab.upstream().requests.contains { $0.path == path } }
                    try await client.interrupt(.string(request.id), reason: "USER_VOICE_INPUT")
                    let end = try await request.ended()
                    #expect(end.end == .interrupted && end.last?["phase"]?.string == phase, "\(end.last?.text ?? "")")
                    try await until("the closed connection") {
                        try await lab.upstream().requests.contains { $0.path == path && $0.end == .clientClosed }
                    }
                    let metrics = try await worker.get("/metrics").body
                    #expect(metrics.contains(#"sluice_interrupts_total{phase="\#(phase)",result="closed"} 1"#))
                    #expect(metrics.contains("sluice_recognition_seconds_count \(phase == "retrieving" ? 1 : 0)"))
                }
                #expect(try await !lab.upstream().requests.contains { $0.path.hasSuffix("/chat/completions") }, "no model was asked")
            }
        }

        @Test func `failures of recognition end the request, failures of retrieval do not`() async throws {
            try await withLab { lab in
                let settings = Self.settings(lab, recognition: "sim-e503", key: "sim-e500")
                _ = try await lab.worker("w1", settings)
                let gateway = try await lab.gateway("g1", settings)
                let client = try await lab.client(gateway, fields: [("enable_srs", true)])
                let failed = try await client.request(model: "m", fields: Self.voice(Self.question)).ended()
                #expect(failed.last?["error_code"] == "UPSTREAM_ERROR" && failed.last?["error_detail"] == "recognition_failed")
                #expect(failed.last?["retryable"] == true)
                let tries = try await lab.upstream().requests.count { $0.path == "/v1/audio/transcriptions" }
                #expect(tries == 2, "one retry")
                #expect(try await client.request(model: lab.model("sim-n3-g0")).ended().end == .finished)
            }
        }

        @Test(.needs(.python, .espeak, .pocketsphinx)) func `a real recognizer transcribes a synthetic voice`() async throws {
            let port = Ports.free()
            let recognizer = try ChildProcess.spawn(
                TestProgram.python.require(),
                ScriptFile.recognizer.arguments([TestProgram.pocketsphinx.require(), String(port)]))
            try await withLab { lab in
                try await until("the recognizer") { try await HTTPCall.get(port, "/").status == 200 }
                let settings: [String: String?] = [
                    "SLUICE_RECOGNITION_URL": "http://127.0.0.1:\(port)/v1", "SLUICE_RECOGNITION_MODEL": "en-us",
                ]
                _ = try await lab.worker("w1", settings)
                let client = try await lab.client(lab.gateway("g1", settings))
                for sentence in ["tell me about the weather", "how far is the river"] {
                    let file = lab.folder.file("\(sentence.hashValue).wav")
                    let spoken = try await Program.run(
                        TestProgram.espeak.require(), ["-v", "en-us", "-s", "120", "-w", file, sentence])
                    #expect(spoken.succeeded, "\(spoken.output)")
                    let content: JSON = [
                        "voice_mode": "BASE64", "audio_format": "wav",
                        "voice": .string(Base64.encode(try Array(Data(contentsOf: URL(filePath: file))))),
                    ]
                    let request = try await client.request(
                        model: "readable", fields: [("data_type", "VOICE"), ("stream_flag", false), ("content", content)])
                    // The model repeats the question that it was asked.
                    try await until("the answer") { request.text.contains("“\(sentence)”") || request.checker.end != nil }
                    #expect(request.checker.transcript == sentence && request.text.contains("“\(sentence)”"), "\(request.text)")
                    try await client.interrupt(.string(request.id))
                    try await request.ended()
                }
                #expect(client.problems.isEmpty, "\(client.problems)")
            }
            await recognizer.destroy()
        }
    }
}
