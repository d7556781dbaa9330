import Contract
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

        @Test func `an interrupt closes the connections of recognition and retrieval`() async throws {
            try await withLab { lab in
                for (name, recognition, key, phase) in [
                    ("a", "sim-h0", nil, "recognizing"), ("b", "asr", "sim-h0", "retrieving"),
                ] as [(String, String, String?, String)] {
                    var settings = Self.settings(lab, recognition: recognition, key: key)
                    settings["SLUICE_RETRIEVAL_TIMEOUT"] = "60s"
                    settings["SLUICE_NAMESPACE"] = name
                    _ = try await lab.worker("w-\(name)", settings)
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
    }
}
